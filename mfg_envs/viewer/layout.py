"""Where everything goes: panels in a frame, and the way between states and pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfg_envs.viewer.stage import Stage

SIDE = 584  # of the one panel in a frame of 720 x 720
FRAME = 720
BLOCK = 16  # video codecs want sides divisible by this
LEAST_UNIT = 0.8  # smaller, text is hard to read

# In units: lines of text above each panel, numbers of the axes below it, legend, footer.
HEAD, TICKS, FOOT, LEFT, RIGHT, GAP = 52, 24, 60, 44, 92, 24

FAR = 1e5  # pixels: beyond, SDL's integers overflow
BAR = 14  # of the footer, if there is one

BEFORE, AFTER = 0.015, 0.06  # room on the time axis before 0 and after T, of T: the crowd at T is as wide as that

Rect = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class Layout:
    """Panels in rows and columns, with a legend at the right and a footer.

    Attributes:
        width, height: of the frame, in pixels.
        rows, columns: of panels.
        unit: size of text and margins; 1 in a frame of 720 x 720.
    """

    width: int
    height: int
    rows: int = 1
    columns: int = 1
    unit: float = 1.0

    @staticmethod
    def around(width: int, height: int, rows: int = 1, columns: int = 1) -> Layout:
        """The smallest frame, its sides divisible by 16, for panels of at least this size."""
        unit = max(LEAST_UNIT, min(1.0, height / SIDE))
        w = (LEFT + RIGHT + GAP * (columns - 1)) * unit + columns * width
        h = (FOOT + (HEAD + TICKS) * rows) * unit + rows * height
        return Layout(BLOCK * math.ceil(w / BLOCK), BLOCK * math.ceil(h / BLOCK), rows, columns, unit)

    @property
    def panels(self) -> list[Rect]:
        """Rectangles of the panels, row by row."""
        u = self.unit
        w = (self.width - (LEFT + RIGHT + GAP * (self.columns - 1)) * u) / self.columns
        h = (self.height - (FOOT + (HEAD + TICKS) * self.rows) * u) / self.rows
        return [
            (
                round(LEFT * u + j * (w + GAP * u)),
                round(HEAD * u + i * (h + (HEAD + TICKS) * u)),
                max(16, int(w)),
                max(16, int(h)),
            )
            for i in range(self.rows)
            for j in range(self.columns)
        ]

    def axes(self, stages: list[Stage]) -> list[Axes]:
        """The axes of a stage in each panel."""
        return [Axes.fit(stage, panel) for stage, panel in zip(stages, self.panels, strict=False)]


@dataclass(frozen=True)
class Axes:
    """A stage in a rectangle: a map in the plane; or, on the line, time to the right and states upwards."""

    stage: Stage
    rect: Rect

    @staticmethod
    def fit(stage: Stage, panel: Rect) -> Axes:
        """As much of the panel as there is; a map keeps its proportions."""
        x, y, w, h = panel
        if stage.dim == 2:
            sides = np.subtract(stage.high, stage.low)
            pixels = min(w / sides[0], h / sides[1])
            fitted = max(16, int(sides[0] * pixels + 1e-6)), max(16, int(sides[1] * pixels + 1e-6))
            x, y, w, h = x + (w - fitted[0]) // 2, y + (h - fitted[1]) // 2, *fitted
        return Axes(stage, (x, y, w, h))

    def pixels(self, x: np.ndarray, time: float | np.ndarray = 0.0) -> np.ndarray:
        """Where states (n, dim) are in the frame; on the line, at these times: (n, 2) float, at most 1e5 off."""
        left, top, w, h = self.rect
        low, high = np.array(self.stage.low), np.array(self.stage.high)
        share = (x - low) / (high - low)
        if self.stage.dim == 1:
            across = np.asarray(time) / self.stage.horizon + BEFORE
            across = np.broadcast_to(across / (1 + BEFORE + AFTER), len(x))
            share = np.stack([across, share[:, 0]], axis=1)
        return np.clip(np.stack([left + share[:, 0] * w, top + (1 - share[:, 1]) * h], axis=1), -FAR, FAR)

    def state(self, pixel: tuple[int, int]) -> np.ndarray:
        """The state (dim,) at a pixel."""
        left, top, w, h = self.rect
        share = np.array([(pixel[0] - left) / w, 1 - (pixel[1] - top) / h])[-self.stage.dim :]
        return np.array(self.stage.low) + share * np.subtract(self.stage.high, self.stage.low)

    def time(self, pixel: tuple[int, int]) -> float:
        """On the line, the time at a pixel."""
        return ((pixel[0] - self.rect[0]) / self.rect[2] * (1 + BEFORE + AFTER) - BEFORE) * self.stage.horizon

    def holds(self, pixel: tuple[int, int]) -> bool:
        """Whether a pixel is in the panel."""
        left, top, w, h = self.rect
        return left <= pixel[0] < left + w and top <= pixel[1] < top + h


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between low and high, about `count` of them."""
    rough = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * min((1, 2, 5, 10), key=lambda m: abs(m * magnitude - rough))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]
