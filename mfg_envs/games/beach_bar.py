"""The beach bar: everybody wants to be near the bar and nobody in a crowd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import Array, Game, check_integer, check_number
from mfg_envs.games.floor_plan import FloorPlan

if TYPE_CHECKING:
    from mfg_envs.mean_field import Distribution

BEACH = FloorPlan((-1.0,), (1.0,))


@dataclass(frozen=True)
class BeachBar(Game):
    """Bathers on a beach walk towards the bar and away from the crowd.

    ![the crowd's density over time](../../assets/beach_bar_v0.png)

    ## Equations
    The beach is [-1, 1], the bar at x_bar. With `reflect` the exact fold of the line at both ends and mu_t(x) the
    crowd's density:

        x_{t+1} = reflect(x_t + a_t dt + sigma sqrt(dt) z_t),          x_0 ~ N(m0, s0^2), reflected
        r = dt (-c_x |x - x_bar| - c_a a^2 - c_m log(mu_t(x) + eps))                      no terminal reward

    ## Observation and action
    | index | observation | min | max |
    |---|---|---|---|
    | 0 | position x | -1 | 1 |
    | 1 | t/T | 0 | 1 |

    | index | action | min | max |
    |---|---|---|---|
    | 0 | velocity a | -1 | 1 |

    ## Start and end
    x_0 ~ N(m0, s0^2), reflected at the ends. Everybody terminates at T.

    ## Equilibrium
    The reward falls with the density, strictly, and derives from a potential: the equilibrium is unique, and fictitious
    play converges to it. The crowd spreads around the bar. J* is near -2.02, and doing nothing is exploitable by 7.04
    (`python benchmarks/oracles.py`).

    Source: arXiv 2510.22158, section on the beach bar; Perrin et al. (2020), arXiv 2007.03458. Their constants for this
    continuous form are not public: the defaults here are ours.

    Version history: v0, the first.

    Args:
        x_bar: position of the bar.
        c_x, c_a, c_m: costs of distance to the bar, of velocity, of the crowd.
        eps: what is added to the density before its logarithm is taken.
        sigma: diffusion.
        dt: length of a step.
        horizon: T.
        m0, s0: mean and standard deviation of the initial position, before reflection.

    Raises:
        ValueError: naming the field that is out of range.
    """

    x_bar: float = 0.4
    c_x: float = 2.0
    c_a: float = 0.5
    c_m: float = 0.5
    eps: float = 1e-3
    sigma: float = 0.2
    dt: float = 0.05
    horizon: int = 40
    m0: float = -0.6
    s0: float = 0.1

    dim = 1
    action_dim = 1
    reward_reads: ClassVar[frozenset[str]] = frozenset({"log_density"})

    def __post_init__(self) -> None:
        check_integer(self, "horizon")
        for name in ("x_bar", "m0"):
            check_number(self, name)
            if abs(getattr(self, name)) > 1:
                raise ValueError(f"BeachBar: {name} must be on the beach [-1, 1], got {getattr(self, name)}")
        for name in ("c_x", "c_a", "c_m", "sigma", "s0"):
            check_number(self, name, low=0.0)
        for name in ("eps", "dt"):
            check_number(self, name, low=0.0, strict=True)

    @property
    def floor(self) -> FloorPlan:
        """The beach."""
        return BEACH

    @property
    def landmarks(self) -> dict[str, np.ndarray]:
        """The bar."""
        return {"bar": np.array([self.x_bar])}

    @property
    def action_low(self) -> np.ndarray:
        """-1, (1,)."""
        return np.array([-1.0])

    @property
    def action_high(self) -> np.ndarray:
        """1, (1,)."""
        return np.array([1.0])

    def initial_state(self, z: Array) -> Array:
        """m0 + s0 z, reflected: (n, 1) -> (n, 1)."""
        return BEACH.reflect(array_namespace(z).full_like(z, self.m0), self.s0 * z)

    def step(self, t: int, x: Array, a: Array, mu: Distribution, z: Array) -> Array:
        """x + a dt + sigma sqrt(dt) z, reflected: all (n, 1)."""
        return BEACH.reflect(x, self.project_action(a) * self.dt + self.sigma * self.dt**0.5 * z)

    def reward(self, t: int, x: Array, a: Array, mu: Distribution) -> Array:
        """dt (-c_x |x - x_bar| - c_a a^2 - c_m log(mu_t(x) + eps)): x (n, 1), a (n, 1) -> (n,)."""
        xp, a = array_namespace(x), self.project_action(a)
        crowded = xp.log(xp.exp(mu.log_density(x)) + self.eps)
        return -self.dt * (xp.sum(self.c_x * xp.abs(x - self.x_bar) + self.c_a * a**2, axis=-1) + self.c_m * crowded)
