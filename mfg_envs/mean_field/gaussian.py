"""Gaussian crowds in closed form: what linear policies make of linear dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import Array, like
from mfg_envs.mean_field.base import MeanField


class Gaussian(MeanField):
    """mu_t = N(mean_t, covariance_t) for t = 0, ..., T.

    Args:
        means: (T+1, d).
        covariances: (T+1, d, d), symmetric and positive semi-definite. Where one is singular there is no density.
        mean_actions: (T, k), the crowd's mean projected actions, if known.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    def __init__(self, means: np.ndarray, covariances: np.ndarray, mean_actions: np.ndarray | None = None) -> None:
        self.means = np.asarray(means, dtype=np.float64)
        self.covariances = np.asarray(covariances, dtype=np.float64)
        if self.means.ndim != 2:
            raise ValueError(f"means must have shape (T+1, d), got {self.means.shape}")
        self.horizon, self.dim = self.means.shape[0] - 1, self.means.shape[1]
        wanted = (self.horizon + 1, self.dim, self.dim)
        if self.covariances.shape != wanted:
            raise ValueError(f"covariances must have shape {wanted}, got {self.covariances.shape}")
        self.mean_actions = None if mean_actions is None else np.asarray(mean_actions, dtype=np.float64)
        if self.mean_actions is not None and (self.mean_actions.ndim != 2 or len(self.mean_actions) != self.horizon):
            raise ValueError(f"mean_actions must have shape ({self.horizon}, k), got {self.mean_actions.shape}")

    def at(self, t: int) -> GaussianDistribution:
        """mu_t, for t = 0, ..., T."""
        self._check_time(t)
        action = None if self.mean_actions is None or t == self.horizon else self.mean_actions[t]
        return GaussianDistribution(self.means[t], self.covariances[t], action)


@dataclass(frozen=True, eq=False)
class GaussianDistribution:
    """N(mean, covariance): mean (d,), covariance (d, d), the crowd's mean action (k,) if known."""

    mean: np.ndarray
    covariance: np.ndarray
    action: np.ndarray | None = None

    @property
    def mean_action(self) -> np.ndarray:
        """Mean action (k,).

        Raises:
            ValueError: if it is not known, as at T.
        """
        if self.action is None:
            raise ValueError("this Gaussian crowd has no mean action: none was given, or its time is T")
        return self.action

    @cached_property
    def _cholesky(self) -> np.ndarray:
        try:
            return np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise ValueError("a Gaussian with a singular covariance has no density") from None

    def log_density(self, x: Array) -> Array:
        """Log of the normal density, in the library of x: (n, d) -> (n,).

        Raises:
            ValueError: if the covariance is singular.
        """
        xp, dim = array_namespace(x), len(self.mean)
        centre, whiten = like(self.mean, x), like(np.linalg.inv(self._cholesky).T, x)
        log_scale = float(np.sum(np.log(np.diag(self._cholesky)))) + 0.5 * dim * math.log(2 * math.pi)
        return -0.5 * xp.sum(((x - centre) @ whiten) ** 2, axis=-1) - log_scale

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n independent states, (n, d); a singular covariance is allowed."""
        return rng.multivariate_normal(self.mean, self.covariance, size=n, method="svd")
