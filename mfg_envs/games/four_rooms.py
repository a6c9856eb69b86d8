"""Four rooms with doors: a crowd that explores them, or one that wants out of them and is in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import Array, Game, check_array, check_integer, check_number, like
from mfg_envs.games.floor_plan import FloorPlan, cross_of_rooms

if TYPE_CHECKING:
    from mfg_envs.mean_field import Distribution

CROWDS = ("entropy", "congestion")
FASTEST = 1e18  # squares of velocities up to this are finite, in float32 too


@dataclass(frozen=True)
class FourRooms(Game):
    """Walkers in the square [-1, 1]^2, which a cross of walls with four doors cuts into four rooms.

    ![the crowd's density over time](../../assets/four_rooms_v0.png)

    ## Equations
    With v the velocity, mu_t(x) the crowd's density at x, and `reflect` specular reflection at walls and border:

        x_{t+1} = reflect(x_t + v_t dt + sigma sqrt(dt) z_t),          x_0 = reflect(start + s0 z)
        crowd="entropy":      r = dt (-c_a |v|^2 - c_m log(mu_t(x) + eps))
        crowd="congestion":   r = dt (-c_x |x - x_goal| - c_a (1 + c_c mu_t(x))^alpha |v|^2)

    and no terminal reward. In the first game, the paper's, everybody wants to be where nobody is, and the crowd
    explores all rooms. In the second everybody wants to the far room, and moving through a crowd is dear. The
    displacement of a step is traced to its first contact, the normal component of what remains of it is reversed, and
    so on; at the 32nd contact it ends there. Nobody ever ends inside a wall, crosses one or leaves the square, however
    long the step.

    ## Observation and action
    | index | observation | min | max |
    |---|---|---|---|
    | 0, 1 | position x | -1 | 1 |
    | 2 | t/T | 0 | 1 |

    | index | action | min | max |
    |---|---|---|---|
    | 0, 1 | velocity v | -1 | 1; projected on the disc of radius 1 |

    ## Start and end
    x_0 is a displacement of s0 z from `start`, reflected. Everybody terminates at T.

    ## Equilibrium
    The entropy game's reward falls with the density, strictly, and derives from a potential: its equilibrium is unique,
    and fictitious play converges to it. J* is near 0.65, and doing nothing is exploitable by 7.4. No theorem covers
    congestion: there fictitious play finds an equilibrium with a J* near -12.0, and doing nothing is exploitable by 4.1
    (`python benchmarks/oracles.py`; docs/oracles.md on the grid's error).

    Source: arXiv 2510.22158, section on the four rooms (entropy). Its constants are not public: the defaults here are
    ours, and so is the congestion game's choice of constants.

    Version history: v0, the first.

    Args:
        crowd: "entropy" or "congestion".
        c_a, c_m: costs of velocity, and of the crowd (entropy).
        c_x, c_c, alpha: cost of distance to the goal; weight and exponent of the crowd in the cost of velocity
            (congestion).
        x_goal: the goal (congestion).
        eps: what is added to the density before its logarithm is taken (entropy).
        sigma: diffusion.
        dt: length of a step.
        horizon: T.
        start, s0: where the crowd starts, and the standard deviation of its displacement from there.
        wall, door: half-thickness of the cross of walls, and width of the doors, which are centred at (0, ±0.5) and
            (±0.5, 0).
        walls: another floor plan: rectangles ((x, y), (x, y)) from lower to upper corner, instead of the cross.

    Raises:
        ValueError: naming the field that is out of range, an unknown crowd, or walls that cover the start.
    """

    crowd: str = "entropy"
    c_a: float = 0.5
    c_m: float = 1.0
    c_x: float = 4.0
    c_c: float = 1.0
    alpha: float = 1.0
    x_goal: tuple[float, float] = (0.7, 0.7)
    eps: float = 1e-3
    sigma: float = 0.3
    dt: float = 0.05
    horizon: int = 40
    start: tuple[float, float] = (-0.7, -0.7)
    s0: float = 0.08
    wall: float = 0.05
    door: float = 0.25
    walls: Any = None

    dim = 2
    action_dim = 2
    reward_reads: ClassVar[frozenset[str]] = frozenset({"log_density"})

    def __post_init__(self) -> None:
        if self.crowd not in CROWDS:
            raise ValueError(f"FourRooms: crowd must be one of {CROWDS}, got {self.crowd!r}")
        check_integer(self, "horizon")
        for name in ("c_a", "c_m", "c_x", "c_c", "alpha", "sigma", "s0"):
            check_number(self, name, low=0.0)
        for name in ("eps", "dt", "wall"):
            check_number(self, name, low=0.0, strict=True)
        check_number(self, "door", low=0.0)
        for name in ("start", "x_goal"):
            check_array(self, name, ndims=(1,))
            if np.shape(getattr(self, name)) != (2,):
                raise ValueError(f"FourRooms: {name} must be two numbers, got {getattr(self, name)!r}")
        try:
            floor = self.floor
        except ValueError as error:
            raise ValueError(f"FourRooms: {error}") from None
        if self.walls is not None:
            object.__setattr__(self, "walls", floor.walls)  # as nested tuples of floats
        if not self.floor.contains(np.array([self.start]))[0]:
            raise ValueError(f"FourRooms: start {self.start} is covered by walls or outside the square")

    @cached_property
    def floor(self) -> FloorPlan:
        """The square with its walls."""
        if self.walls is None:
            return cross_of_rooms(self.wall, self.door)
        return FloorPlan((-1.0, -1.0), (1.0, 1.0), self.walls)

    @property
    def landmarks(self) -> dict[str, np.ndarray]:
        """The goal, if there is one."""
        return {"goal": np.array(self.x_goal)} if self.crowd == "congestion" else {}

    @property
    def action_low(self) -> np.ndarray:
        """(-1, -1)."""
        return np.array([-1.0, -1.0])

    @property
    def action_high(self) -> np.ndarray:
        """(1, 1)."""
        return np.array([1.0, 1.0])

    def project_action(self, a: Array) -> Array:
        """The nearest velocity with |v| <= 1: (n, 2) -> (n, 2)."""
        xp = array_namespace(a)
        a = xp.minimum(xp.maximum(a, -FASTEST), FASTEST)
        return a / xp.sqrt(xp.maximum(_square(a), 1.0))[:, None]

    def initial_state(self, z: Array) -> Array:
        """`start` displaced by s0 z, reflected: (n, 2) -> (n, 2)."""
        return self.floor.reflect(array_namespace(z).zeros_like(z) + like(self.start, z), self.s0 * z)

    def step(self, t: int, x: Array, a: Array, mu: Distribution, z: Array) -> Array:
        """x + v dt + sigma sqrt(dt) z, reflected: all (n, 2)."""
        return self.floor.reflect(x, self.project_action(a) * self.dt + self.sigma * self.dt**0.5 * z)

    def reward(self, t: int, x: Array, a: Array, mu: Distribution) -> Array:
        """The reward of the game that `crowd` names: x (n, 2), a (n, 2) -> (n,)."""
        xp, v = array_namespace(x), self.project_action(a)
        density, effort = xp.exp(mu.log_density(x)), self.c_a * _square(v)
        if self.crowd == "entropy":
            return -self.dt * (effort + self.c_m * xp.log(density + self.eps))
        distance = xp.linalg.vector_norm(x - like(self.x_goal, x), axis=-1)
        return -self.dt * (self.c_x * distance + (1 + self.c_c * density) ** self.alpha * effort)


def _square(v: Array) -> Array:
    """|v|^2 of vectors in the plane, (n, 2) -> (n,): by columns, several times as fast as a sum along short rows."""
    return v[:, 0] ** 2 + v[:, 1] ** 2
