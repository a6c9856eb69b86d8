"""The contract of a crowd: one distribution at one time, and the flow of distributions over the horizon."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from mfg_envs.games.base import Array


class Distribution(Protocol):
    """mu_t: the crowd at one time. A game reads of it what it declares in `reward_reads` and `dynamics_reads`."""

    @property
    def mean(self) -> Array:
        """Mean state, (d,)."""

    @property
    def mean_action(self) -> Array:
        """Mean projected action at this time, (k,)."""

    def log_density(self, x: Array) -> Array:
        """log mu_t(x) in the library of x: (n, d) -> (n,)."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n independent states, (n, d)."""


class MeanField(ABC):
    """mu: the flow of distributions mu_0, ..., mu_T of a crowd.

    Attributes:
        horizon: T; the flow has T + 1 marginals.
        dim: d, the dimension of the state.
    """

    horizon: int
    dim: int

    @abstractmethod
    def at(self, t: int) -> Distribution:
        """mu_t, for t = 0, ..., T.

        Raises:
            ValueError: for any other t.
        """

    def sample_path(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n samples of each marginal, (T+1, n, d). Samples at different times are not of one agent's path."""
        return np.stack([self.at(t).sample(n, rng) for t in range(self.horizon + 1)])

    def log_density_path(self, x: np.ndarray) -> np.ndarray:
        """log mu_t(x_t) at every t: (T+1, n, d) -> (T+1, n)."""
        self._check_path(x)
        return np.stack([self.at(t).log_density(x[t]) for t in range(self.horizon + 1)])

    def _check_time(self, t: int) -> None:
        if not isinstance(t, (int, np.integer)) or not 0 <= t <= self.horizon:
            raise ValueError(f"t must be one of the integers 0, ..., {self.horizon} in this mean field, got {t!r}")

    def _check_path(self, x: np.ndarray) -> None:
        if np.ndim(x) != 3 or np.shape(x)[0] != self.horizon + 1:
            raise ValueError(f"x must have shape (T+1, n, d) with T = {self.horizon}, got {np.shape(x)}")
