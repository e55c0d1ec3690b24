"""Colours of Okabe and Ito, which colour-blind readers can tell apart, and markers."""

from __future__ import annotations

from typing import Any

from matplotlib.markers import CARETDOWN

DATA, TRAJECTORY, FIXED_POINT, CURVE, CRITICAL = "#0072B2", "0.55", "#D55E00", "black", "0.7"
COOLING, HEATING, UNSTABLE, PREDICTED = "#0072B2", "#D55E00", "#D55E00", "#F0E442"
BAND, BAND_TEXT, MODELS = "#56B4E9", "#0072B2", ("#D55E00", "#009E73", "#CC79A7", "#0072B2", "#E69F00")


TRIANGLE: dict[str, Any] = {"marker": CARETDOWN, "color": FIXED_POINT, "ms": 6, "ls": "none"}
