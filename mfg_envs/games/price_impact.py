"""Traders who move the price by trading: interaction through the crowd's mean action."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import Array, Game, check_integer, check_number, like

if TYPE_CHECKING:
    from mfg_envs.mean_field import Distribution

ACTION_BOUND = 10.0


@dataclass(frozen=True)
class PriceImpact(Game):
    """Traders liquidate an inventory while the crowd's mean trading rate moves the price.

    ![the crowd's inventory over time](../../assets/price_impact_v0.png)

    ## Equations
    With q the inventory, a the trading rate and abar_t the crowd's mean rate at t (the interaction is through actions):

        q_{t+1} = q_t + a_t dt + sigma sqrt(dt) z_t,                                     q_0 ~ N(m0, s0^2)
        r = dt (gamma abar_t q_t - c_a a_t^2 - c_q q_t^2),                               g = -c_g q_T^2

    The price rises by gamma abar_t dt in a step, which an inventory q feels as gamma abar_t q dt; c_a is the trader's
    own cost of trading fast, c_q and c_g the cost of risk during the day and of what is left at its end.

    ## Observation and action
    | index | observation | min | max |
    |---|---|---|---|
    | 0 | inventory q | `state_low` | `state_high`, what box actions and noises up to 10 standard deviations reach |
    | 1 | t/T | 0 | 1 |

    | index | action | min | max |
    |---|---|---|---|
    | 0 | trading rate a | -10 | 10 |

    ## Start and end
    q_0 ~ N(m0, s0^2). Everybody terminates at T.

    ## Equilibrium
    Linear-quadratic, so `mfg_envs.equilibrium.solve` gives it exactly. With the defaults everybody sells, fast at
    first. No theorem covers its uniqueness for all constants: price impact is not monotone. Damped fixed-point
    iterations diverge for `gamma=4, c_g=0, c_q=c_a=0.1, horizon=40`, where the solution exists and the action box
    binds.

    Source: the market model in the appendix of arXiv 2510.22158 is of this kind; Carmona and Lacker (2015). Their
    constants are not public: the defaults here are ours.

    Version history: v0, the first.

    Args:
        gamma: price impact of the crowd's mean rate: positive rewards trading with the crowd, negative against it.
        c_a, c_q, c_g: costs of the rate (positive), of the inventory, of the inventory at T.
        sigma: volatility of the inventory.
        dt: length of a step.
        horizon: T.
        m0, s0: mean and standard deviation of the initial inventory.

    Raises:
        ValueError: naming the field that is out of range.
    """

    gamma: float = 1.0
    c_a: float = 0.5
    c_q: float = 1.0
    c_g: float = 2.0
    sigma: float = 0.3
    dt: float = 0.05
    horizon: int = 20
    m0: float = 1.0
    s0: float = 0.3

    dim = 1
    action_dim = 1
    reward_reads: ClassVar[frozenset[str]] = frozenset({"mean_action"})

    def __post_init__(self) -> None:
        check_integer(self, "horizon")
        for name in ("gamma", "m0"):
            check_number(self, name)
        for name in ("c_q", "c_g", "sigma", "s0"):
            check_number(self, name, low=0.0)
        for name in ("c_a", "dt"):
            check_number(self, name, low=0.0, strict=True)

    @property
    def action_low(self) -> np.ndarray:
        """-10, (1,)."""
        return np.array([-ACTION_BOUND])

    @property
    def action_high(self) -> np.ndarray:
        """10, (1,)."""
        return np.array([ACTION_BOUND])

    @cached_property
    def _reach(self) -> float:
        """How far from m0 an inventory can get with box actions and |z| <= 10."""
        step = ACTION_BOUND * self.dt + 10 * self.sigma * self.dt**0.5
        return 10 * self.s0 + self.horizon * step

    @property
    def state_low(self) -> np.ndarray:
        """(1,): what box actions and noises |z| <= 10 can reach. Inventories are never clipped to it."""
        return np.array([self.m0 - self._reach])

    @property
    def state_high(self) -> np.ndarray:
        """(1,): what box actions and noises |z| <= 10 can reach. Inventories are never clipped to it."""
        return np.array([self.m0 + self._reach])

    def initial_state(self, z: Array) -> Array:
        """q_0 = m0 + s0 z: (n, 1) -> (n, 1)."""
        return self.m0 + self.s0 * z

    def step(self, t: int, x: Array, a: Array, mu: Distribution, z: Array) -> Array:
        """q + a dt + sigma sqrt(dt) z: all (n, 1)."""
        return x + self.project_action(a) * self.dt + self.sigma * self.dt**0.5 * z

    def reward(self, t: int, x: Array, a: Array, mu: Distribution) -> Array:
        """dt (gamma abar_t q - c_a a^2 - c_q q^2): x (n, 1), a (n, 1) -> (n,)."""
        a = self.project_action(a)
        rate = self.gamma * like(mu.mean_action, x) * x - self.c_a * a**2 - self.c_q * x**2
        return self.dt * array_namespace(x).sum(rate, axis=-1)

    def terminal_reward(self, x: Array, mu: Distribution) -> Array:
        """-c_g q_T^2: (n, 1) -> (n,)."""
        return -self.c_g * array_namespace(x).sum(x**2, axis=-1)
