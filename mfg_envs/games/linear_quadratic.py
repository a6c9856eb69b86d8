"""The linear-quadratic game: attraction to a target and to the crowd's mean, solved exactly by `equilibrium`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import Array, Game, check_array, check_integer, check_number, like

if TYPE_CHECKING:
    from mfg_envs.mean_field import Distribution

Scalar = float
Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]

ACTION_BOUND = 10.0


@dataclass(frozen=True)
class LinearQuadratic(Game):
    """Agents steer towards a target and towards the crowd's mean, in any dimension.

    ![the crowd's state over time](../../assets/lq_v0.png)

    ## Equations
    With m_t the mean of mu_t:

        x_{t+1} = A x_t + B a_t + A_bar m_t + sigma z_t,                                 x_0 ~ N(m0, s0^2 I)
        r = -c_x |x - x_target|^2 - c_a |a|^2 - c_m |x - m_t|^2                          no terminal reward

    ## Observation and action
    | index | observation | min | max |
    |---|---|---|---|
    | 0, ..., d-1 | state x | `state_low` | `state_high`, what box actions and noises of 10 deviations reach |
    | d | t/T | 0 | 1 |

    | index | action | min | max |
    |---|---|---|---|
    | 0, ..., k-1 | control a | -10 | 10 |

    ## Start and end
    x_0 ~ N(m0, s0^2 I). Everybody terminates at T.

    ## Equilibrium
    `mfg_envs.equilibrium.solve` gives it exactly: linear gains by Riccati, the crowd's mean from one linear system.
    With the defaults J* is -6.1096, the mean action peaks at 3.3, far inside the box, and doing nothing is exploitable
    by 18.04. The last action is 0, as x_T is not rewarded. Attraction to the mean (c_m) is covered by no uniqueness
    theorem; where there is no unique equilibrium `solve` says so.

    Source: arXiv 2510.22158, section on the LQ model. The paper publishes the form; its constants are not public, so
    the defaults here are ours.

    Version history: v0, the first.

    Args:
        A, B, A_bar: a number s stands for s I, a vector for a diagonal, a matrix for itself. A and A_bar are (d, d); a
            (d, k) matrix B sets the dimension k of the action, which is d otherwise.
        c_x, c_a, c_m: costs per step of distance to the target, of the action (positive), of distance to the crowd.
        x_target: the target, a number or (d,).
        horizon: T.
        sigma: standard deviation of the noise, each coordinate.
        m0, s0: mean (a number or (d,)) and standard deviation of the initial states.
        dim: d.

    Raises:
        ValueError: naming the field that is out of range or of the wrong shape.
    """

    A: Scalar | Vector | Matrix = 0.9
    B: Scalar | Vector | Matrix = 0.2
    A_bar: Scalar | Vector | Matrix = 0.1
    c_x: float = 0.5
    c_a: float = 0.1
    c_m: float = 0.5
    x_target: Scalar | Vector = 1.0
    horizon: int = 20
    sigma: float = 0.1
    m0: Scalar | Vector = -1.0
    s0: float = 0.3
    dim: int = 1

    reward_reads: ClassVar[frozenset[str]] = frozenset({"mean"})
    dynamics_reads: ClassVar[frozenset[str]] = frozenset({"mean"})

    def __post_init__(self) -> None:
        check_integer(self, "dim")
        check_integer(self, "horizon")
        check_number(self, "c_a", low=0.0, strict=True)
        for name in ("c_x", "c_m", "sigma", "s0"):
            check_number(self, name, low=0.0)
        for name in ("A", "B", "A_bar"):
            check_array(self, name, ndims=(0, 1, 2))
            shape = np.shape(getattr(self, name))
            rows_only = name == "B" and len(shape) == 2  # a matrix B has any number of columns
            wanted = (self.dim, shape[1] if rows_only else self.dim)[: len(shape)]
            if shape != wanted or 0 in shape:
                full = f"({self.dim}, {'k' if name == 'B' else self.dim})"
                raise ValueError(
                    f"LinearQuadratic: {name} must be a number, a vector of length {self.dim} or a {full} matrix "
                    f"when dim is {self.dim}, got shape {shape}"
                )
        for name in ("x_target", "m0"):
            check_array(self, name, ndims=(0, 1))
            if np.shape(getattr(self, name)) not in ((), (self.dim,)):
                raise ValueError(
                    f"LinearQuadratic: {name} must be a number or a vector of length {self.dim} when dim is "
                    f"{self.dim}, got shape {np.shape(getattr(self, name))}"
                )

    @property
    def action_dim(self) -> int:  # type: ignore[override]
        """k: the number of columns of a matrix B, d otherwise."""
        return len(self.B[0]) if np.ndim(self.B) == 2 else self.dim  # type: ignore[index,arg-type]

    @property
    def landmarks(self) -> dict[str, np.ndarray]:
        """The target."""
        return {"target": np.broadcast_to(np.array(self.x_target), self.dim)}

    @property
    def action_low(self) -> np.ndarray:
        """-10 for each coordinate, (k,)."""
        return -self.action_high

    @property
    def action_high(self) -> np.ndarray:
        """10 for each coordinate, (k,)."""
        return np.full(self.action_dim, ACTION_BOUND)

    @cached_property
    def _state_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The (d,) hull over t of all that box actions and |z| <= 10 can reach, own and the crowd's, cut to float32.

        With M = A + A_bar, n steps carry an agent's own input by A^n, and the crowd's, through its mean, by M^n - A^n.
        """
        A, B = as_matrix(self.A, self.dim), as_matrix(self.B, self.dim)
        M = A + as_matrix(self.A_bar, self.dim)
        own, both = np.eye(self.dim), np.eye(self.dim)  # A^n and M^n
        centre = np.broadcast_to(np.asarray(self.m0), self.dim)
        inputs = np.zeros(self.dim)  # how far the inputs since t = 0 reach
        low, high = np.full(self.dim, np.inf), np.full(self.dim, -np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.horizon + 1):
                start = 10 * self.s0 * (np.abs(own) + np.abs(both - own)).sum(axis=1)
                low, high = np.fmin(low, both @ centre - start - inputs), np.fmax(high, both @ centre + start + inputs)
                inputs = inputs + 10 * self.sigma * (np.abs(own) + np.abs(both - own)).sum(axis=1)
                inputs = inputs + ACTION_BOUND * (np.abs(own @ B) + np.abs((both - own) @ B)).sum(axis=1)
                own, both = A @ own, M @ both
        largest = float(np.finfo(np.float32).max)
        return np.clip(low, -largest, largest), np.clip(high, -largest, largest)

    @property
    def state_low(self) -> np.ndarray:
        """(d,): what box actions and noises |z| <= 10 can reach. States are never clipped to it."""
        return self._state_bounds[0].copy()

    @property
    def state_high(self) -> np.ndarray:
        """(d,): what box actions and noises |z| <= 10 can reach. States are never clipped to it."""
        return self._state_bounds[1].copy()

    def project_action(self, a: Array) -> Array:
        """Each coordinate clipped to [-10, 10]: (n, k) -> (n, k). Bounds that are numbers make it cheap."""
        xp = array_namespace(a)
        return xp.minimum(xp.maximum(a, -ACTION_BOUND), ACTION_BOUND)

    def initial_state(self, z: Array) -> Array:
        """x_0 = m0 + s0 z: (n, d) -> (n, d)."""
        return like(self.m0, z) + self.s0 * z

    def step(self, t: int, x: Array, a: Array, mu: Distribution, z: Array) -> Array:
        """A x + B a + A_bar m_t + sigma z: x (n, d), a (n, k), z (n, d) -> (n, d)."""
        moved = _times(self.A, x) + _times(self.B, self.project_action(a)) + self.sigma * z
        return moved + _times(self.A_bar, like(mu.mean, x)[None, :])

    def reward(self, t: int, x: Array, a: Array, mu: Distribution) -> Array:
        """-c_x |x - x_target|^2 - c_a |a|^2 - c_m |x - m_t|^2: x (n, d), a (n, k) -> (n,)."""
        a = self.project_action(a)
        to_target, to_crowd = x - like(self.x_target, x), x - like(mu.mean, x)
        xp = array_namespace(x)
        of_state = xp.sum(self.c_x * to_target**2 + self.c_m * to_crowd**2, axis=-1)
        return -of_state - self.c_a * xp.sum(a**2, axis=-1)


def as_matrix(value: Scalar | Vector | Matrix, dim: int) -> np.ndarray:
    """A number as s I, a vector as a diagonal, a matrix as is: float64 (d, d), or (d, k) for a matrix."""
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim == 2 else np.diag(np.broadcast_to(array, dim))


def _times(M: Scalar | Vector | Matrix, x: Array) -> Array:
    """M x for each row of x: (n, k) -> (n, d), with numbers and diagonals multiplied as such."""
    if isinstance(M, float):
        return M * x
    return x * like(M, x) if np.ndim(M) == 1 else x @ like(M, x).T
