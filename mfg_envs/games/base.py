"""What every game shares: its sizes, its boxes, and the contract of its five methods."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, device

if TYPE_CHECKING:
    from mfg_envs.games.floor_plan import FloorPlan
    from mfg_envs.mean_field import Distribution

Array = Any  # an array of any library that follows the array API standard: NumPy, PyTorch, ...

READABLE = frozenset({"mean", "log_density", "mean_action"})  # what a game may read of the crowd


def like(value: Any, x: Array) -> Array:
    """`value` as an array of the library, dtype and device of `x`; a float stays one, as it fits them all."""
    if type(value) is float or (type(value) is type(x) and value.dtype == x.dtype and value.device == x.device):
        return value
    return array_namespace(x).asarray(value, dtype=x.dtype, device=device(x))


class Game(ABC):
    """A finite-horizon mean field game with continuous states and actions (arXiv 2510.22158, section 2).

    A representative agent moves by `x_{t+1} = f(t, x_t, a_t, mu_t, z_t)` and collects `r(t, x_t, a_t, mu_t)` for
    t = 0, ..., T-1 and `g(x_T, mu_T)` at the end. The noise `z` is standard normal and **passed in**, so that every
    method is a pure function of arrays. The methods follow the array API standard: the same lines run on NumPy and on
    PyTorch, and are differentiable under PyTorch wherever the equations are.

    A game is a frozen dataclass whose fields are its constants: hashable, comparable, picklable and JSON-able.
    A subclass gives `dim`, `action_dim`, `horizon`, the four bounds, `initial_state`, `step` and `reward`; it says in
    `reward_reads` and `dynamics_reads` what it looks at of the crowd ("mean", "log_density", "mean_action"), and
    nothing else is computed for it.

    Attributes:
        dim: d, the dimension of the state.
        action_dim: k, the dimension of the action.
        horizon: T, the number of decisions.
        state_low, state_high: (d,) finite bounds of the states that box actions and noises |z| <= 10 can reach.
        action_low, action_high: (k,) the action box; actions outside are projected by the game itself.
    """

    reward_reads: ClassVar[frozenset[str]] = frozenset()
    dynamics_reads: ClassVar[frozenset[str]] = frozenset()

    dim: int
    action_dim: int
    horizon: int

    @property
    def floor(self) -> FloorPlan | None:
        """Borders and walls of a bounded state space, None where states are unbounded."""
        return None

    @property
    def state_low(self) -> np.ndarray:
        """Lower bounds of the state, (d,): the floor's, for a game that has one."""
        return np.array(self._need_floor().low)

    @property
    def state_high(self) -> np.ndarray:
        """Upper bounds of the state, (d,): the floor's, for a game that has one."""
        return np.array(self._need_floor().high)

    @property
    def landmarks(self) -> dict[str, np.ndarray]:
        """Places that pictures mark, by name, each (d,): none, unless the game has some."""
        return {}

    def _need_floor(self) -> FloorPlan:
        if self.floor is None:
            raise NotImplementedError(f"{type(self).__name__} has no floor: it must give state_low and state_high")
        return self.floor

    @property
    @abstractmethod
    def action_low(self) -> np.ndarray:
        """Lower bounds of the action, (k,)."""

    @property
    @abstractmethod
    def action_high(self) -> np.ndarray:
        """Upper bounds of the action, (k,)."""

    @abstractmethod
    def initial_state(self, z: Array) -> Array:
        """States at t = 0 from standard normal `z`: (n, d) -> (n, d)."""

    @abstractmethod
    def step(self, t: int, x: Array, a: Array, mu: Distribution, z: Array) -> Array:
        """The next states: x (n, d), a (n, k), the crowd at t, standard normal z (n, d) -> (n, d)."""

    @abstractmethod
    def reward(self, t: int, x: Array, a: Array, mu: Distribution) -> Array:
        """The rewards at t: x (n, d), a (n, k), the crowd at t -> (n,)."""

    def terminal_reward(self, x: Array, mu: Distribution) -> Array:
        """The rewards at T: x (n, d), the crowd at T -> (n,); zeros unless the game has one.

        It may read of the crowd what `reward_reads` declares, except the mean action: nobody acts at T.
        """
        return array_namespace(x).zeros_like(x[:, 0])

    def project_action(self, a: Array) -> Array:
        """The admissible action nearest to `a`: (n, k) -> (n, k). `step` and `reward` apply it themselves."""
        xp = array_namespace(a)
        return xp.minimum(xp.maximum(a, like(self.action_low, a)), like(self.action_high, a))

    def contains(self, x: Array) -> Array:
        """Which states are states of this game: (n, d) -> (n,) bool."""
        xp = array_namespace(x)
        inside = xp.all((x >= like(self.state_low, x)) & (x <= like(self.state_high, x)), axis=-1)
        return inside if self.floor is None else inside & self.floor.contains(x)

    @property
    def constants(self) -> dict[str, Any]:
        """The fields of the game by name: what `type(game)(**game.constants)` makes it from again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def check_number(owner: object, name: str, *, low: float = -math.inf, strict: bool = False) -> None:
    """Store field `name` of a frozen dataclass as a float, finite and at least `low` (above it if `strict`).

    Raises:
        ValueError: if it is no such number.
    """
    wanted = "a finite number" + ("" if low == -math.inf else f" {'above' if strict else 'of at least'} {low:g}")
    value = getattr(owner, name)
    number = as_floats(value)
    if number.ndim != 0 or not np.isfinite(number) or number < low or (strict and number == low):
        raise ValueError(f"{type(owner).__name__}: {name} must be {wanted}, got {value!r}")
    object.__setattr__(owner, name, number.item())


def check_integer(owner: object, name: str, *, low: int = 1) -> None:
    """Store field `name` of a frozen dataclass as an int of at least `low`.

    Raises:
        ValueError: if it is no such integer.
    """
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{type(owner).__name__}: {name} must be an integer of at least {low}, got {value!r}")
    object.__setattr__(owner, name, int(value))


def check_array(owner: object, name: str, *, ndims: tuple[int, ...]) -> None:
    """Store field `name` of a frozen dataclass as a float or as nested tuples of floats (JSON-able, hashable).

    Raises:
        ValueError: if it is not finite, or of a number of dimensions that is not in `ndims`.
    """
    value = getattr(owner, name)
    kinds = " or ".join(("a number", "a vector", "a matrix")[n] for n in ndims)
    array = as_floats(value)
    if array.ndim not in ndims or not np.all(np.isfinite(array)):
        raise ValueError(f"{type(owner).__name__}: {name} must be {kinds} of finite numbers, got {value!r}")
    stored = array.tolist()
    if array.ndim == 1:
        stored = tuple(stored)
    elif array.ndim == 2:
        stored = tuple(map(tuple, stored))
    object.__setattr__(owner, name, stored)


def as_floats(value: Any) -> np.ndarray:
    """A float64 array of real numbers; a single NaN for anything else: text, bools, ragged lists."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    return array.astype(np.float64, copy=False) if array.dtype.kind in "fiu" else np.asarray(np.nan)
