"""The crowd as it stands: N agents, their mean, their mean action."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mfg_envs.games.base import Array, like
from mfg_envs.mean_field.base import Distribution, MeanField
from mfg_envs.mean_field.density import KernelDensity

if TYPE_CHECKING:
    from mfg_envs.games import FloorPlan


class Empirical:
    """The empirical distribution of N agents at one time.

    Means of states and of actions count every agent, the one that asks included, as in the N-player game.

    Args:
        x: (N, d) states.
        a: (N, k) projected actions of this time, if there are any.
        floor: borders and walls, which the density respects; None for states that are unbounded.
        bandwidth: standard deviation of the density's kernel, in the units of x; None for the rule of `KernelDensity`.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    def __init__(
        self,
        x: np.ndarray,
        a: np.ndarray | None = None,
        floor: FloorPlan | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.x = np.asarray(x, dtype=np.float64)
        self.a = None if a is None else np.asarray(a, dtype=np.float64)
        if self.x.ndim != 2 or len(self.x) == 0:
            raise ValueError(f"x must have shape (N, d) with N of at least 1, got {self.x.shape}")
        self.floor, self.bandwidth = floor, bandwidth
        if self.a is not None and (self.a.ndim != 2 or len(self.a) != len(self.x)):
            raise ValueError(f"a must have shape ({len(self.x)}, k), one row for each agent, got {self.a.shape}")

    @staticmethod
    def from_trajectories(
        x: np.ndarray,
        a: np.ndarray | None = None,
        floor: FloorPlan | None = None,
        bandwidth: float | None = None,
    ) -> EmpiricalPath:
        """The flow of empirical distributions of trajectories: x (T+1, N, d), projected actions a (T, N, k).

        Raises:
            ValueError: if the shapes do not fit together.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 3:
            raise ValueError(f"x must have shape (T+1, N, d), got {x.shape}")
        if a is not None and (np.ndim(a) != 3 or np.shape(a)[:2] != (x.shape[0] - 1, x.shape[1])):
            raise ValueError(f"a must have shape ({x.shape[0] - 1}, {x.shape[1]}, k), got {np.shape(a)}")
        return EmpiricalPath(x, None if a is None else np.asarray(a, dtype=np.float64), floor, bandwidth)

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

    @cached_property
    def density(self) -> KernelDensity:
        """The kernel density estimate of all N agents (docs/density.md)."""
        return KernelDensity(self.x, self.floor, self.bandwidth)

    def log_density(self, x: Array) -> Array:
        """Log of the kernel density estimate of all N agents, in the library of x, without gradient: (n, d) -> (n,)."""
        return like(self.density.log_density(_to_numpy(x)), x)

    def leave_one_out(self) -> LeaveOneOut:
        """The crowd as each of its agents sees it: without itself in the density. Means count everyone still."""
        return LeaveOneOut(self)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n states drawn from the N agents with replacement, (n, d)."""
        return self.x[rng.integers(len(self.x), size=n)]


class LeaveOneOut:
    """An empirical distribution whose density at row i of x is that of the agents other than i."""

    def __init__(self, everyone: Empirical) -> None:
        self.everyone = everyone

    @property
    def mean(self) -> np.ndarray:
        """Mean state of all N agents, (d,)."""
        return self.everyone.mean

    @property
    def mean_action(self) -> np.ndarray:
        """Mean projected action of all N agents, (k,)."""
        return self.everyone.mean_action

    def log_density(self, x: Array) -> Array:
        """Log of the density of the others at each agent: x (N, d), the agents themselves in order -> (N,).

        Raises:
            ValueError: if x is not the agents themselves.
        """
        if x is not self.everyone.x and not np.array_equal(_to_numpy(x), self.everyone.x):
            raise ValueError(
                "leaving one out, the density is known at the agents themselves only: x is not their states"
            )
        with np.errstate(divide="ignore"):
            log_density = np.log(self.everyone.density.leave_one_out())
        return like(log_density, x)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n states drawn from the N agents with replacement, (n, d)."""
        return self.everyone.sample(n, rng)


class EmpiricalPath(MeanField):
    """The flow of empirical distributions of N trajectories; `Empirical.from_trajectories` makes it.

    Attributes:
        states, actions: (T+1, N, d), and (T, N, k) or None.
    """

    def __init__(
        self, x: np.ndarray, a: np.ndarray | None, floor: FloorPlan | None = None, bandwidth: float | None = None
    ) -> None:
        self.states, self.actions, self.floor, self.bandwidth = x, a, floor, bandwidth
        self.horizon, self.dim = len(x) - 1, x.shape[2]
        actions = [None] * len(x) if a is None else [*a, None]
        self._marginals = [Empirical(x_t, a_t, floor, bandwidth) for x_t, a_t in zip(x, actions, strict=True)]

    def at(self, t: int) -> Distribution:
        """The N agents at t, for t = 0, ..., T."""
        self._check_time(t)
        return self._marginals[t]


def _to_numpy(x: Array) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
