"""The logger of the package: what it did without being asked, for whoever listens.

Messages have the level INFO, and nothing prints them unless the program that uses the package says so, for example by
``logging.basicConfig(level=logging.INFO)``. What may be wrong is a warning instead, of the module `warnings`.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("constrained_vae")
logger.addHandler(logging.NullHandler())
