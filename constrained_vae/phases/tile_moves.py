"""Moves of single tiles to a lower free energy: from where a tile is idle to where one more helps most (T14).

The branch of the fixed protocol (T13) is one of many. Which share of the tiles each part of a split receives, and which
reconstruction splits first, decides between local minima of F, and cooling does not undo it. So a solution is started
again with one tile moved. If a tile of mass pi and posterior mass q_i moves to a place y, then F changes by

    -sum_i rho_i log(1 + pi exp(-H_i(y)) / Z_i - q_i)

before the reconstructions respond. The moves with the lowest such F are tried first: the loop solves from there, and
the result is kept if its F is lower. Places for a tile are the other sites and maxima of c, sought from data points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, to_host
from ..data.prepared import Block
from ..data.sample import spanning_sample
from ..equations import Expectations
from ..latent.sites import Sites, coincident
from ..problems.posterior import Tiles, energies, posterior
from ..problems.problem import Problem
from .continuation import Continuation, State

_ROUGH = 1e-4  # residual to which a move is solved, in units of stiffness^-1/2: F is then known to about its square
_GAIN = 1e-9  # fall of F, relative to 1 + |F|, that counts
_SAMPLE = 256  # rows among which places for one more tile are sought
_CLIMBS = 3  # steps of a place towards its maximum of c
_PLACES, _GIVERS = 16, 16  # places for one more tile, and sites that may give one, of which all pairs are evaluated
_APART = 0.5  # distance of places that differ, in units of the resolution stiffness^-1/2
_LEAST = 1e-300  # factor of Z whose logarithm is taken in place of that of a smaller one
_MAX_EXPONENT = 600.0  # larger exponents count as this one


@dataclass(frozen=True, eq=False)
class Move:
    """Move of a tile to a place (D,), or to the site of another tile, the receiver."""

    tile: int
    place: FloatArray
    receiver: int | None


@dataclass(eq=False)
class TileMoves:
    """The search for lower free energies, at one temperature after the other.

    Attributes
    ----------
    branch : Continuation
    tries : int
        Number of moves in a row without success after which the search at one temperature ends.
    report : callable
        Called with every state that a move has led to.
    """

    branch: Continuation
    tries: int
    report: Callable[[State], None] = lambda state: None

    def improved(self, state: State) -> State:
        """The state, or one of lower F at the same temperature; when the time is up, the given state."""
        best, left = state, self.tries
        try:
            while left > 0:
                for move in self.ranked(best)[:left]:
                    if (lower := self.lower(best, move)) is not None:
                        best, left = lower, self.tries
                        break
                    left -= 1
                else:
                    break
            return state if best is state else self.certified(state, best.sites)
        except deadline.TimeUp:
            return state

    def exchanged(self, states: list[State]) -> Iterator[int]:
        """Replace states by the result of a neighbour's sites wherever F is lower; yield the number of each.

        The states are those of a branch, in its order, each solved from the one before. So they are first solved from
        the one after, and then from both wherever one has been replaced.
        """
        offers = {(n, n - 1) for n in range(1, len(states))}
        while offers:
            back = [(n, n - 1) for n in range(len(states) - 1, 0, -1)]
            for giver, taker in [*back, *((taker, giver) for giver, taker in reversed(back))]:
                if (giver, taker) not in offers:
                    continue
                offers.remove((giver, taker))
                old, sites = states[taker], states[giver].sites
                rough = self.branch.solve(old.beta, sites, split=True, rough=_ROUGH)
                if self.falls(rough, old):
                    new = self.certified(old, rough.sites)
                    if new is not old:
                        states[taker] = self.improved(new)
                        offers |= {(taker, n) for n in (taker - 1, taker + 1) if 0 <= n < len(states)}
                        yield taker

    def certified(self, old: State, sites: Sites) -> State:
        """The state that is solved from given sites to the tolerance, if its F is lower than that of the old one."""
        new = self.branch.solve(old.beta, sites, split=True)
        return new if self.falls(new, old) and new.acceptable else old

    def falls(self, new: State, old: State) -> bool:
        """Whether F is lower by more than counts."""
        before = old.solution.free_energy
        return before - new.solution.free_energy > _GAIN * (1 + abs(before))

    def lower(self, state: State, move: Move) -> State | None:
        """The state after a move if its F is lower; and after ever larger moves between two sites, while F falls."""
        found, count = None, 1
        while (sites := moved(state.sites, move, count)) is not None:
            new = self.branch.solve(state.beta, sites, split=True, rough=_ROUGH)
            self.report(new)
            if not self.falls(new, state):
                break
            found = state = new
            if move.receiver is None:
                break
            count *= 2
        return found

    def ranked(self, state: State) -> list[Move]:
        """Moves of one tile, in the order of F before all reconstructions respond."""
        problem, sites = self.branch.problem_at(state.beta), state.sites
        last = np.array([np.flatnonzero(sites.index == a)[-1] for a in range(len(sites))])
        masses = sites.tile_masses[last]
        shares = np.divide(masses, sites.masses, out=np.zeros(len(sites)), where=masses > 0)
        places = self.places(problem, sites, np.array(np.median(masses)))
        n_new = len(places)
        if not self.branch.options.free:  # free masses pass between sites by themselves
            places = np.concatenate([places, sites.decoder])
        if not len(places):
            return []
        idle = to_host(problem.total(_idleness, sites.decoder, sites.log_masses, shares))
        givers = np.argsort(idle, kind="stable")[:_GIVERS]
        v, b = problem.framed.readout(problem.data.to_device(places))
        change = to_host(
            problem.total(
                _changes, sites.decoder, sites.log_masses, v, b, givers, masses[givers], shares[givers], columns=len(v)
            )
        )
        moves = []
        for giver, place in np.array(np.unravel_index(np.argsort(change, axis=None, kind="stable"), change.shape)).T:
            tile, site = int(last[givers[giver]]), int(place) - n_new
            if site != givers[giver]:
                moves.append(Move(tile, places[place], int(last[site]) if site >= 0 else None))
        return moves

    def places(self, problem: Problem, sites: Sites, mass: FloatArray) -> FloatArray:
        """Places (n, D) where one more tile lowers F most, apart from each other and from the sites."""
        psi, gain = self.starts, np.zeros(len(self.starts))
        for n in range(1 + _CLIMBS):
            v, b = problem.framed.readout(problem.data.to_device(psi))
            gain, weight, sums = problem.total(_gains, sites.decoder, sites.log_masses, v, b, mass, columns=len(psi))
            if n < _CLIMBS:
                found = Expectations(weight, sums, gain.sum(), gain.sum())
                psi = to_host(problem.updated_decoder(problem.data.to_device(psi), found))
        psi = psi[np.argsort(-to_host(gain), kind="stable")]
        group = coincident(np.concatenate([sites.decoder, psi]), _APART * problem.framed.stiffness**-0.5)
        first = np.sort(np.unique(group, return_index=True)[1]) - len(sites)
        return psi[first[first >= 0][:_PLACES]]

    @cached_property
    def starts(self) -> FloatArray:
        """Rows (n, D) from which places are sought."""
        rows = self.branch.problem.data.rows.distinct()
        return np.asarray(rows.take(spanning_sample(rows, _SAMPLE)[0]), dtype=np.float64)


def moved(sites: Sites, move: Move, count: int) -> Sites | None:
    """The sites after `count` tiles of one of them have moved; None if it has not so many."""
    index, decoder, giver = sites.index.copy(), sites.decoder, sites.index[move.tile]
    if move.receiver is None:
        target, decoder = len(sites), np.concatenate([decoder, move.place[None]])
    else:
        target = int(index[move.receiver])
    tiles = np.flatnonzero(index == giver)
    if giver == target or len(tiles) < count:
        return None
    index[tiles[-count:]] = target
    used, index = np.unique(index, return_inverse=True)
    return Sites(decoder[used], index.astype(np.intp, copy=False), sites.tile_masses)


def _idleness(block: Block, tiles: Tiles, shares: Array) -> Array:
    """Rise of F (k,) if one tile of a site is removed, whose share in the site is given."""
    xp, q = array_namespace(shares), posterior(block, tiles).q
    return -(block.rho @ xp.log(xp.maximum(1 - shares * q, _LEAST)))


def _gains(block: Block, tiles: Tiles, v: Array, b: Array, mass: Array) -> tuple[Array, Array, Array]:
    """Fall of F (n,) if a tile of a mass is added at a place, and the mass (n,) and sums (n, S) of its data."""
    xp, added = array_namespace(v), mass * _weights(block, tiles, v, b)[0]
    q = block.rho[:, None] * added / (1 + added)
    return block.rho @ xp.log1p(added), q.sum(axis=0), q.T @ block.phi


def _changes(
    block: Block, tiles: Tiles, v: Array, b: Array, givers: npt.NDArray[np.intp], masses: Array, shares: Array
) -> Array:
    """Change of F (givers, places) if a tile, of given mass and share in its site, moves from a site to a place."""
    xp, (weights, q) = array_namespace(v), _weights(block, tiles, v, b)
    after = (1 + masses[n] * weights - (shares[n] * q[:, a])[:, None] for n, a in enumerate(to_host(givers)))
    return -xp.stack([block.rho @ xp.log(xp.maximum(factor, _LEAST)) for factor in after])


def _weights(block: Block, tiles: Tiles, v: Array, b: Array) -> tuple[Array, Array]:
    """exp(-H_i(y)) / Z_i (n, places), and the encoder of the tiles."""
    xp, (q, log_partition, _) = array_namespace(v), posterior(block, tiles)
    exponent = -energies(block, tiles.objective, v, b) - log_partition[:, None]
    return xp.exp(xp.minimum(exponent, _MAX_EXPONENT)), q
