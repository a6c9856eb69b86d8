"""The one palette of all pictures, for readers with any colour vision (ours).

Density and amounts go from dark to bright. The four directions differ in lightness or along blue and yellow, which all
common kinds of colour blindness keep apart; `tests/test_viewer.py` simulates them.
"""

from __future__ import annotations

import numpy as np

Colour = tuple[int, int, int]

BACKGROUND: Colour = (15, 17, 26)
EMPTY: Colour = (21, 25, 38)  # floor without anybody
WALL: Colour = (104, 111, 130)
GRID: Colour = (38, 43, 60)
TEXT: Colour = (234, 236, 242)
MUTED: Colour = (158, 164, 180)
ACCENT: Colour = (245, 158, 50)
NASH: Colour = (255, 140, 196)
BOX: Colour = (28, 32, 46)

EAST: Colour = (246, 156, 44)
NORTH: Colour = (252, 243, 208)
WEST: Colour = (84, 176, 252)
SOUTH: Colour = (176, 48, 144)
STILL: Colour = (170, 176, 190)

LEVELS = 32  # of each quantity that colours agents


def ramp(anchors: list[Colour], n: int) -> np.ndarray:
    """n colours from the first anchor to the last, uint8 (n, 3)."""
    at = np.linspace(0, len(anchors) - 1, n)
    channels = [np.interp(at, np.arange(len(anchors)), channel) for channel in zip(*anchors, strict=True)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


DENSITY = ramp([EMPTY, (22, 56, 78), (24, 98, 108), (42, 146, 130), (118, 200, 160), (222, 246, 206)], 256)
HEADINGS = ramp([EAST, NORTH, WEST, SOUTH, EAST], LEVELS + 1)[:-1]  # counter-clockwise from the east
AMOUNTS = ramp([(62, 92, 200), (132, 130, 168), (214, 176, 110), (255, 232, 120)], LEVELS)
AGENTS = np.concatenate([HEADINGS, [STILL], AMOUNTS]).astype(np.uint8)  # all colours of agents, by `tint`


def heading_tints(drift: np.ndarray, still: float) -> np.ndarray:
    """Rows of AGENTS for directions, drift (n, d) of which the first two coordinates count: (n,) integers.

    Drifts of at most `still` have no direction.
    """
    x = drift[:, 0]
    y = drift[:, 1] if drift.shape[1] > 1 else np.zeros_like(x)
    turn = np.arctan2(y, x) / (2 * np.pi)
    tints = np.round(turn * LEVELS).astype(np.intp) % LEVELS
    return np.where(np.hypot(x, y) <= still, LEVELS, tints)


def amount_tints(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows of AGENTS for amounts between low and high, clipped: (n,) -> (n,) integers."""
    share = (values - low) / max(high - low, 1e-12)
    return LEVELS + 1 + np.clip(np.nan_to_num(share) * LEVELS, 0, LEVELS - 1).astype(np.intp)


def density_levels(density: np.ndarray, half: float) -> np.ndarray:
    """Rows of DENSITY: p / (p + half), which is fixed, never saturates and shows thin crowds beside dense ones."""
    return np.round(255 * density / (density + half)).astype(np.uint8)
