"""Agents as small antialiased discs, drawn once for each colour and quarter of a pixel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mfg_envs.viewer.palette import AGENTS, BACKGROUND
from mfg_envs.viewer.pygame_ce import pygame

PARTS = 2  # positions of a disc in a pixel, along each axis
RIM = 0.9  # width of the dark edge that sets agents off from each other, in pixels
RIM_ALPHA = 0.55


def radius_of(num_agents: int, unit: float) -> float:
    """In pixels: the more agents, the smaller."""
    return unit * float(np.clip(3.7 * (1000 / max(num_agents, 1)) ** 0.2, 2.0, 6.0))


@lru_cache(maxsize=32)
def sprites(radius: float) -> list[pygame.Surface]:
    """Discs of this radius: the colour `tint` at the quarter (i, j) of a pixel is number PARTS^2 tint + PARTS i + j."""
    half = int(radius + RIM + 0.75)
    grid = np.arange(2 * half + 1) - half
    discs = []
    for tint in AGENTS:
        for i in range(PARTS):
            for j in range(PARTS):
                x, y = grid - (i + 0.5) / PARTS + 0.5, grid - (j + 0.5) / PARTS + 0.5
                distance = np.hypot(x[None, :], y[:, None])
                body = np.clip(radius - distance + 0.5, 0, 1)
                rim = np.clip(radius + RIM - distance + 0.5, 0, 1) * RIM_ALPHA * (1 - body)
                alpha = body + rim
                share = (body / np.maximum(alpha, 1e-9))[..., None]
                colour = share * tint + (1 - share) * np.array(BACKGROUND)
                discs.append(surface(np.concatenate([colour, 255 * alpha[..., None]], axis=-1).round()))
    return discs


def surface(pixels: np.ndarray) -> pygame.Surface:
    """A surface from colours and alpha (height, width, 4), in SDL's own order: others are drawn 20 times as slowly."""
    ordered = np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]).astype(np.uint8)
    return pygame.image.frombuffer(ordered.tobytes(), pixels.shape[1::-1], "BGRA").copy()


def draw(frame: pygame.Surface, places: np.ndarray, tints: np.ndarray, radius: float) -> None:
    """Draw discs at places (n, 2), in pixels, in the colours `tints` (n,)."""
    discs = sprites(radius)
    half = discs[0].get_width() // 2
    column, i = np.divmod(np.floor(places[:, 0] * PARTS).astype(np.intp), PARTS)
    row, j = np.divmod(np.floor(places[:, 1] * PARTS).astype(np.intp), PARTS)
    number = PARTS**2 * tints + PARTS * i + j
    corners = zip((column - half).tolist(), (row - half).tolist(), strict=True)
    frame.fblits(zip(map(discs.__getitem__, number.tolist()), corners, strict=True))  # lists would wake the collector
