"""What does not change while a game is played: the part of the state space that is shown, its walls and landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from mfg_envs.games import FloorPlan, Game
from mfg_envs.mean_field import Distribution, Empirical

CELLS = {1: 200, 2: 80}  # of the raster of densities, along each axis
HALF = {1: 3.0, 2: 2.5}  # the density in the middle of the colour scale, in units of the uniform one
FINER = 4  # columns of a space-time picture in a step
PADDING = 0.1  # around the crowd where there is no floor, of its extent
SAMPLES = 4000  # for the marginal of a mean field in more than two dimensions


@dataclass(frozen=True)
class Stage:
    """The view of a game: of its one state over time, or of its first two states.

    Attributes:
        low, high: corners of the view, of length 1 or 2.
        horizon: T.
        state_dim: d; of more than two states, the first two are shown.
        floor: borders and walls, None where states are unbounded.
        landmarks: names and places, of length 1 or 2.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    horizon: int
    state_dim: int
    floor: FloorPlan | None = None
    landmarks: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @property
    def dim(self) -> int:
        """1 (space over time) or 2 (a map)."""
        return len(self.low)

    @cached_property
    def half(self) -> float:
        """The density that is drawn in the middle of the colour scale."""
        area = self.floor.free_area if self.floor is not None else math.prod(np.subtract(self.high, self.low).tolist())
        return HALF[self.dim] / area

    @cached_property
    def raster(self) -> np.ndarray:
        """Centres of the cells that densities are drawn on, (m, dim), in C order."""
        n = CELLS[self.dim]
        axes = [a + (np.arange(n) + 0.5) / n * (b - a) for a, b in zip(self.low, self.high, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, self.dim)

    @cached_property
    def _nearest(self) -> np.ndarray | None:
        """For each cell of the raster the nearest one on the floor: scaled up, no dark of a wall spills from it."""
        if self.floor is None or not self.floor.walls:
            return None
        free = self.floor.contains(self.raster).reshape((CELLS[self.dim],) * self.dim)
        nearest = ndimage.distance_transform_edt(~free, return_distances=False, return_indices=True)
        return np.ravel_multi_index(tuple(nearest), free.shape).ravel()

    def density(self, mu: Distribution) -> np.ndarray:
        """Density on the raster, (CELLS,) * dim; within walls that of the nearest floor."""
        p = self.density_at(mu, self.raster)
        if self._nearest is not None:
            p = p[self._nearest]
        return p.reshape((CELLS[self.dim],) * self.dim)

    def density_at(self, mu: Distribution, points: np.ndarray) -> np.ndarray:
        """Density of what is shown of mu: (m, dim) -> (m,); zeros where it has none."""
        if self.state_dim > 2:
            x = mu.x if isinstance(mu, Empirical) else mu.sample(SAMPLES, np.random.default_rng(0))
            mu = Empirical(x[:, :2])
        try:
            p = mu.density.density(points) if isinstance(mu, Empirical) else np.exp(mu.log_density(points))
        except ValueError:  # all of the crowd in one point, or a singular Gaussian
            return np.zeros(len(points))
        return np.asarray(p, dtype=np.float64)

    def holds(self, x: np.ndarray) -> bool:
        """Whether nearly all of the agents x (N, d) are in view."""
        inside = (x[:, : self.dim] >= self.low) & (x[:, : self.dim] <= self.high)
        return bool(inside.all(axis=1).mean() >= 0.98)

    def grown(self, x: np.ndarray) -> Stage:
        """This stage, or, if it does not hold the agents x (N, d) and has no floor, a larger one that does."""
        if self.floor is not None or self.holds(x):
            return self
        low, high = extent(x[:, : self.dim], [self.low, self.high])
        return replace(self, low=low, high=high)


def stage_of(game: Game, x: np.ndarray) -> Stage:
    """The stage of a game: its floor, or where the states x (n, d) and its landmarks are."""
    dim = min(game.dim, 2)
    landmarks = tuple((name, tuple(np.asarray(p, dtype=float)[:dim].tolist())) for name, p in game.landmarks.items())
    if game.floor is not None and game.dim <= 2:
        return Stage(game.floor.low, game.floor.high, game.horizon, game.dim, game.floor, landmarks)
    low, high = extent(x[:, :dim], [place for _, place in landmarks])
    return Stage(low, high, game.horizon, game.dim, None, landmarks)


def extent(x: np.ndarray, places: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Corners of a box around nearly all of the states x (n, dim) and all of the places; in the plane a square."""
    points = np.concatenate([np.quantile(x, [0.001, 0.999], axis=0), *(np.array([place]) for place in places)])
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.full(len(low), max((high - low).max() / 2, 1e-6) * (1 + 2 * PADDING))
    middle = (low + high) / 2
    return tuple((middle - half).tolist()), tuple((middle + half).tolist())


def columns_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Densities on the line on the way from one time to the next, FINER of them, the last being `after`: (FINER, m).

    Mass moves straight, each quantile of the one to that quantile of the other, as a crowd does; blending the two
    densities would show two crowds. Where there is nobody at one of the times, all are `after`.
    """
    if before.sum() == 0 or after.sum() == 0:
        return np.tile(after, (FINER, 1))
    edges = np.arange(len(after) + 1)
    sums = [np.append(0, np.cumsum(p + 1e-9 * p.max())) for p in (before, after)]
    levels = np.unique(np.concatenate([total / total[-1] for total in sums]))  # of the quantiles: fine in tails, too
    places = [np.interp(levels, total / total[-1], edges) for total in sums]
    middles = [(place[1:] + place[:-1]) / 2 for place in places]
    spacings = [
        1 / (np.interp(middle, edges[:-1] + 0.5, p) + 1e-9 * p.max())
        for middle, p in zip(middles, (before, after), strict=True)
    ]
    columns = []
    for share in np.arange(1, FINER) / FINER:
        p = 1 / ((1 - share) * spacings[0] + share * spacings[1])
        columns.append(np.interp(edges[:-1] + 0.5, (1 - share) * middles[0] + share * middles[1], p))
    return np.stack([*columns, after])
