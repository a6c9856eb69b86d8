"""What the oracles return, and the policies they return it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfg_envs.envs import Policy
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField


@dataclass(frozen=True, eq=False)
class AffinePolicy:
    """a = -(K_t x + k_t).

    Args:
        K: gains, (T, k, d).
        k: offsets, (T, k).
    """

    K: np.ndarray
    k: np.ndarray

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions at t: x (n, d) -> (n, k)."""
        return -(x @ self.K[t].T + self.k[t])


@dataclass(frozen=True, eq=False)
class BestResponse:
    """The best policy against a given crowd, and its expected return; itself a policy.

    Attributes:
        policy: `policy(t, x) -> a`.
        value: E V_0(x_0), its expected return in that crowd. If actions leave the box with a probability
            `outside_box` that matters, this is an upper bound: the box is not part of the closed form.
        outside_box: an upper bound on the probability that the policy's action leaves the action box at some t.
    """

    policy: Policy
    value: float
    outside_box: float = 0.0

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions at t: x (n, d) -> (n, k)."""
        return self.policy(t, x)


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """A mean field equilibrium, exact or learnt.

    Attributes:
        policy: `policy(t, x) -> a`.
        mean_field: the crowd of those who play it.
        value: J, the expected return of the policy in that crowd.
        exploitability: what a best response gains over it; see `exploitability`.
        outside_box: an upper bound on the probability that an action leaves the action box at some t.
        value_is_upper_bound: whether that probability is above 1e-6, so that the box, which closed forms do not see,
            may bind: the value is then an upper bound on what the same crowd allows.
        game: the game that this is an equilibrium of.
        resolution_error: how far the value moves with the resolution of a grid, if that was asked for; 0 for closed
            forms, None where it is not known.
        history: pairs (iterations, exploitability) of an iterative oracle.
    """

    policy: Policy
    mean_field: MeanField
    value: float
    exploitability: float
    outside_box: float = 0.0
    game: Game | None = None
    resolution_error: float | None = None
    history: tuple[tuple[int, float], ...] = ()

    @property
    def value_is_upper_bound(self) -> bool:
        """Whether actions leave the box with a probability above 1e-6."""
        return self.outside_box > 1e-6


@dataclass(frozen=True)
class Exploitability:
    """How much a best response gains over a policy in the policy's own crowd; `float()` gives `value`.

    Attributes:
        value: the estimate, E[J(best response; mu) - J(policy; mu)].
        lower: what a best response achieved by play against the same crowd, with common noise; may be negative.
        crowd_error: how far the value moves when the crowd is made from half of the agents (games that read means), or
            on a coarser grid (games that read the density).
        resolution_error: how far it moves with the resolution of a grid; an indicator, not a bound. 0 for closed forms.
        policy_return: J(policy; mu).
        best_response_return: J(best response; mu).
        stderr: standard error of `value` for closed forms, of `lower` on a grid, where `value` has none.
        outside_box: for closed forms, an upper bound on the probability that the best response leaves the action box;
            above 1e-6 `value` and `best_response_return` are upper bounds.
    """

    value: float
    lower: float
    crowd_error: float
    resolution_error: float
    policy_return: float
    best_response_return: float
    stderr: float
    outside_box: float = 0.0

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class NPlayerGap:
    """What one of N players gains by its best deviation from a policy that all others keep; `float()` gives `value`.

    Attributes:
        value: the gain, in the N-player game. Exact for linear-quadratic games; for others it is what a deviation
            earned, a lower bound that may be negative by chance.
        stderr: standard error of `value`, 0 where it is exact.
        policy_return: J_N, what everybody earns in the N-player game if all keep the policy.
        mean_field_return: J, what they earn in the mean field of the policy.
        difference_stderr: standard error of `difference`, 0 where it is exact.
    """

    value: float
    stderr: float
    policy_return: float
    mean_field_return: float
    difference_stderr: float

    def __float__(self) -> float:
        return self.value

    @property
    def difference(self) -> float:
        """J_N - J. No one's gain: finite crowds differ from the mean field, and so does the estimate of a density."""
        return self.policy_return - self.mean_field_return

    @property
    def below_noise(self) -> bool:
        """Whether `value` is less than two standard errors."""
        return self.value < 2 * self.stderr
