"""How far a crowd is from a law: the Wasserstein-1 distance, exact on the line, sliced in the plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from mfg_envs.mean_field.base import Distribution
from mfg_envs.mean_field.empirical import Empirical
from mfg_envs.mean_field.gaussian import GaussianDistribution
from mfg_envs.mean_field.grid import GridDistribution

DIRECTIONS = 32


def wasserstein(x: np.ndarray, mu: Distribution | np.ndarray, directions: int = DIRECTIONS) -> np.ndarray:
    """The Wasserstein-1 distance of N states, of equal weight, from a law.

    On the line it is exact: the integral of |F_N - F|, the difference of the distribution functions. In the plane it is
    sliced (Bonneel et al. 2015, Journal of Mathematical Imaging and Vision 51): the mean of that of the projections on
    `directions` lines through the origin, at equal angles. The sliced distance of a crowd from its shift by s is
    2/pi |s|. The law may be

    - a Gaussian: exact, and so are its projections;
    - a law on a grid: on the line, the mass of a cell is spread over it evenly; in the plane, it sits in its centre;
    - an empirical law, or an array of states of equal weight.

    Others can be sampled: `wasserstein(x, mu.sample(n, rng))`.

    Args:
        x: (N, d) states, d = 1 or 2; or several crowds of them, (..., N, d).
        mu: the law at the same time, or states (n, d).
        directions: number of lines, in the plane.

    Returns:
        The distance of each crowd, of shape x.shape[:-2].

    Raises:
        ValueError: if a shape does not fit, a state is not finite, or the law is of none of these kinds.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2 or x.shape[-1] not in (1, 2) or x.shape[-2] == 0 or not np.isfinite(x).all():
        raise ValueError(f"x must be finite numbers of shape (..., N, d), N at least 1 and d = 1 or 2, got {x.shape}")
    if isinstance(directions, bool) or not isinstance(directions, (int, np.integer)) or directions < 1:
        raise ValueError(f"directions must be a positive integer, got {directions!r}")
    d = x.shape[-1]
    if d == 1:
        return _on_line(x[..., 0], _project(mu, np.ones(1)))
    angles = (np.arange(directions) + 0.5) * np.pi / directions
    lines = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.mean([_on_line(x @ line, _project(mu, line)) for line in lines], axis=0)


class _Law(Protocol):
    """A law on the line, of Y."""

    @property
    def mean(self) -> float:
        """E Y."""

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Where the distribution function F crosses u in (0, 1)."""

    def below(self, s: np.ndarray) -> np.ndarray:
        """E max(s - Y, 0): the integral of F up to s."""


def _on_line(x: np.ndarray, law: _Law) -> np.ndarray:
    """The integral of |F_N - F|: between two neighbouring states F_N is a constant, which F crosses once at most."""
    x = np.sort(x, axis=-1)
    n = x.shape[-1]
    u, left, right = np.arange(1, n) / n, x[..., :-1], x[..., 1:]
    crossing = np.clip(law.quantile(u), left, right)
    at_x, at_crossing = law.below(x), law.below(crossing)
    between = u * (2 * crossing - left - right) + (at_x[..., :-1] - at_crossing) + (at_x[..., 1:] - at_crossing)
    above = at_x[..., -1] - x[..., -1] + law.mean  # E max(Y - x_N, 0)
    return at_x[..., 0] + between.sum(axis=-1) + above


def _project(mu: Distribution | np.ndarray, line: np.ndarray) -> _Law:
    """The law of y . line, for y of law mu and a unit vector (d,)."""
    d = len(line)
    if isinstance(mu, GaussianDistribution) and len(mu.mean) == d:
        return _Normal(float(mu.mean @ line), float(max(line @ mu.covariance @ line, 0.0)) ** 0.5)
    if isinstance(mu, GridDistribution) and mu.mesh.floor.dim == d:
        return _Cells.of(mu) if d == 1 else _Atoms.of(mu.mesh.centres @ line, mu.mass)
    y = mu.x if isinstance(mu, Empirical) else mu
    if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] == d and len(y) and np.isfinite(y).all():
        return _Atoms.of(y @ line, np.full(len(y), 1.0))
    raise ValueError(
        f"mu must be a Gaussian, a law on a grid, an empirical law, or finite states of shape (n, {d}), "
        f"got {f'shape {y.shape}' if isinstance(y, np.ndarray) else type(mu).__name__}; other laws can be sampled"
    )


@dataclass(frozen=True)
class _Normal:
    mean: float
    std: float

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return self.mean + self.std * ndtri(u)

    def below(self, s: np.ndarray) -> np.ndarray:
        if self.std == 0:
            return np.maximum(s - self.mean, 0.0)
        z = (s - self.mean) / self.std
        return self.std * (z * ndtr(z) + np.exp(-0.5 * z**2) / (2 * np.pi) ** 0.5)


@dataclass(frozen=True)
class _Cells:
    """Cells between faces (n+1,), uniform within. At the faces: F, and the integral of F up to there."""

    mean: float
    faces: np.ndarray
    F: np.ndarray
    integral: np.ndarray

    @staticmethod
    def of(mu: GridDistribution) -> _Cells:
        faces, mass = mu.mesh.lines[0], np.zeros(mu.mesh.shape)
        mass[mu.mesh.free] = mu.mass
        F = np.append(0.0, np.cumsum(mass))
        return _Cells(float(mu.mean[0]), faces, F, np.append(0.0, np.cumsum((F[1:] + F[:-1]) / 2 * np.diff(faces))))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.interp(u, self.F, self.faces)

    def below(self, s: np.ndarray) -> np.ndarray:
        i = np.clip(np.searchsorted(self.faces, s, side="right") - 1, 0, len(self.faces) - 2)
        inside = np.clip(s, self.faces[i], self.faces[i + 1])
        within = (self.F[i] + np.interp(inside, self.faces, self.F)) / 2 * (inside - self.faces[i])
        return self.integral[i] + within + np.maximum(s - inside, 0.0)


@dataclass(frozen=True)
class _Atoms:
    """Increasing points (n,). Before the first point and at each: F, and the mean of Y where it is no larger."""

    mean: float
    points: np.ndarray
    F: np.ndarray
    moment: np.ndarray

    @staticmethod
    def of(points: np.ndarray, weights: np.ndarray) -> _Atoms:
        order = np.argsort(points)
        points, weights = points[order], weights[order] / weights.sum()
        F, moment = (np.append(0.0, np.cumsum(sizes)) for sizes in (weights, weights * points))
        return _Atoms(float(moment[-1]), points, F, moment)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return self.points[np.minimum(np.searchsorted(self.F[1:], u), len(self.points) - 1)]

    def below(self, s: np.ndarray) -> np.ndarray:
        i = np.searchsorted(self.points, s, side="right")
        return s * self.F[i] - self.moment[i]
