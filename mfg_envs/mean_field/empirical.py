"""The crowd as it stands: N agents, their mean, their mean action."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mfg_envs.mean_field.base import Array, Distribution, MeanField


class Empirical:
    """The empirical distribution of N agents at one time.

    Means of states and of actions count every agent, the one that asks included, as in the N-player game.

    Args:
        x: (N, d) states.
        a: (N, k) projected actions of this time, if there are any.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    def __init__(self, x: np.ndarray, a: np.ndarray | None = None) -> None:
        self.x = np.asarray(x, dtype=np.float64)
        self.a = None if a is None else np.asarray(a, dtype=np.float64)
        if self.x.ndim != 2 or len(self.x) == 0:
            raise ValueError(f"x must have shape (N, d) with N of at least 1, got {self.x.shape}")
        if self.a is not None and (self.a.ndim != 2 or len(self.a) != len(self.x)):
            raise ValueError(f"a must have shape ({len(self.x)}, k), one row for each agent, got {self.a.shape}")

    @staticmethod
    def from_trajectories(x: np.ndarray, a: np.ndarray | None = None) -> MeanField:
        """The flow of empirical distributions of trajectories: x (T+1, N, d), projected actions a (T, N, k)."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 3:
            raise ValueError(f"x must have shape (T+1, N, d), got {x.shape}")
        if a is not None and (np.ndim(a) != 3 or np.shape(a)[:2] != (x.shape[0] - 1, x.shape[1])):
            raise ValueError(f"a must have shape ({x.shape[0] - 1}, {x.shape[1]}, k), got {np.shape(a)}")
        return _EmpiricalPath([Empirical(x[t], a[t] if a is not None and t < len(a) else None) for t in range(len(x))])

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean state of all N agents, (d,)."""
        return self.x.sum(axis=0) / len(self.x)

    @cached_property
    def mean_action(self) -> np.ndarray:
        """Mean projected action of all N agents, (k,).

        Raises:
            ValueError: if the crowd was given without actions, as at T.
        """
        if self.a is None:
            raise ValueError("this empirical crowd has no mean action: no actions were given, or its time is T")
        return self.a.sum(axis=0) / len(self.a)

    def log_density(self, x: Array) -> Array:
        """Not there yet: log of a kernel density estimate."""
        raise NotImplementedError("the empirical density")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n states drawn from the N agents with replacement, (n, d)."""
        return self.x[rng.integers(len(self.x), size=n)]


class _EmpiricalPath(MeanField):
    def __init__(self, marginals: list[Empirical]) -> None:
        self.horizon, self._marginals = len(marginals) - 1, marginals

    def at(self, t: int) -> Distribution:
        self._check_time(t)
        return self._marginals[t]
