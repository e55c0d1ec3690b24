"""LostError: whoever computes sums over the data has gone."""

from __future__ import annotations


class LostError(ConnectionError):
    """A cluster does not answer, or has lost data that it cannot make again; the message says which and what to do.

    Solvers catch it as they catch Ctrl-C, to return what they have.
    """
