"""The conformance kit: `check_game` holds a game to the contract of `mfg_envs.games.Game`, one law at a time. Ours.

In a test of a game of one's own: `check_game(MyGame(), MyGame(c_x=3.0, walls=WALLS))`. See docs/your_own_game.md.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice, product
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from mfg_envs.games.base import READABLE, Array, Game, like

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

AGENTS = 128
MOST = 0.95  # of the agents: where equations have kinks, a few may stand on one
EXACT, FLOAT64, FLOAT32 = 1e-14, 1e-12, 1e-3  # tolerances, relative to the largest number of the batch

ARGUMENTS = {
    "initial_state": ("z",),
    "step": ("t", "x", "a", "mu", "z"),
    "reward": ("t", "x", "a", "mu"),
    "terminal_reward": ("x", "mu"),
    "project_action": ("a",),
    "contains": ("x",),
}
COLUMNS = {"initial_state": ("dim",), "step": ("dim",), "project_action": ("action_dim",)}  # the others return (n,)


def check_game(*games: Game) -> None:
    """Check that games obey the contract of `Game`: sizes, purity, both libraries, projection, bounds, and so on.

    Give several instances where one cannot show everything: every field must have an effect in at least one of them.
    Numbers among the fields are varied by 10 % or by 1; a string is varied if another instance has another one; a field
    that is None or empty is not varied, so an instance must be given in which it is set.

    The laws are the functions named `check_...` of this module, in the order in which they stand. The laws of PyTorch
    (the same numbers, the gradients) are skipped silently where PyTorch is not installed. Takes a second or so a game.

    Args:
        games: one or more instances of one class.

    Raises:
        AssertionError: naming the class, the method and the law that it breaks, and what was expected.
        ValueError: unless the games are one or more instances of one class.
    """
    if len({type(game) for game in games}) != 1:
        raise ValueError(f"check_game takes one or more instances of one class of games, got {games!r}")
    cases = [_Case(game) for game in games]
    for law in LAWS_OF_EACH:
        for case in cases:
            law(case)
    for law_of_all in LAWS_OF_ALL:
        law_of_all(cases)


# --- crowds and arguments --------------------------------------------------------------------------------------------


class Probe:
    """A crowd that knows what it is told, and to which anything else is an error: mu_t in tests of games.

    Args:
        mean: (d,), None if it must not be read. So with the others.
        mean_action: (k,).
        log_density: a function of x (n, d) that returns (n,) in the library of x, such as `bell`.

    Raises:
        AssertionError: when something is read that was not given.
    """

    def __init__(
        self,
        mean: Array | None = None,
        mean_action: Array | None = None,
        log_density: Callable[[Array], Array] | None = None,
    ) -> None:
        given = {"mean": mean, "mean_action": mean_action, "log_density": log_density}
        self.__dict__.update({name: value for name, value in given.items() if value is not None})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AssertionError(f"reads mu.{name}, which it does not declare")


def bell(centre: Array, width: Array) -> Callable[[Array], Array]:
    """The log density of a normal law with mean `centre` (d,) and standard deviations `width` (d,), in any library."""
    scale = float(np.sum(np.log(width)) + 0.5 * len(centre) * math.log(2 * math.pi))

    def log_density(x: Array) -> Array:
        whitened = (x - like(centre, x)) / like(width, x)
        return -0.5 * array_namespace(x).sum(whitened**2, axis=-1) - scale

    return log_density


def _flat(level: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.full(len(x), level)


class _Case:
    """A game, and generic arguments for its methods: states of an episode, actions of which some are outside the box.

    x (n, d), a (n, k), z (n, d), and mean, mean_action and log_density of a crowd.
    """

    def __init__(self, game: Game) -> None:
        self.game, self.name = game, type(game).__name__

    @property
    def times(self) -> list[int]:
        """The first time, one in the middle, the last."""
        return sorted({0, self.game.horizon // 2, self.game.horizon - 1})

    @cached_property
    def z(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((AGENTS, self.game.dim))

    @cached_property
    def a(self) -> np.ndarray:
        return self.actions(1.5 * np.random.default_rng(2).uniform(-1, 1, (AGENTS, self.game.action_dim)))

    @cached_property
    def x(self) -> np.ndarray:
        rng, shape = np.random.default_rng(3), (AGENTS, self.game.dim)
        when = rng.integers(self.game.horizon, size=AGENTS)
        x = self.run("initial_state", z=rng.standard_normal(shape))
        found = x.copy()
        for t in range(int(when.max())):
            a = self.actions(rng.uniform(-1, 1, (AGENTS, self.game.action_dim)))
            x = self.run("step", t, x=x, a=a, z=rng.standard_normal(shape))
            found[when == t + 1] = x[when == t + 1]
        return found

    @cached_property
    def mean(self) -> np.ndarray:
        return self.run("initial_state").mean(axis=0) + 0.05 * (self.game.state_high - self.game.state_low)

    @cached_property
    def mean_action(self) -> np.ndarray:
        return self.run("project_action").mean(axis=0)

    @cached_property
    def log_density(self) -> Callable[[Array], Array]:
        return bell(self.mean, (self.game.state_high - self.game.state_low) / 4)

    def actions(self, u: np.ndarray) -> np.ndarray:
        """From the box [-1, 1]^k to the game's."""
        low, high = self.game.action_low, self.game.action_high
        return (low + high) / 2 + u * (high - low) / 2

    def reads(self, method: str) -> frozenset[str]:
        """What a method may read of the crowd. Nobody acts at T, so there is no mean action then."""
        if method == "step":
            return self.game.dynamics_reads
        if method == "reward":
            return self.game.reward_reads
        return self.game.reward_reads - {"mean_action"} if method == "terminal_reward" else frozenset()

    def run(self, method: str, t: int = 0, **given: Any) -> Array:
        """What the method returns for the arguments and the crowd that are given, generic ones where none are.

        The crowd knows what the method declares and no more. Of every call it is required that it leaves its arguments
        as they are, and that its result has the right shape.
        """

        def argument(name: str) -> Any:
            value = given[name] if name in given else getattr(self, name)
            if callable(value):
                return value
            kept[name] = value
            copies[name] = value.clone() if hasattr(value, "clone") else np.array(value)
            return copies[name]

        kept: dict[str, Array] = {}
        copies: dict[str, Array] = {}
        fixed = {"t": t, "mu": Probe(**{name: argument(name) for name in sorted(self.reads(method))})}
        arguments = [fixed[name] if name in fixed else argument(name) for name in ARGUMENTS[method]]
        try:
            with np.errstate(all="ignore"):  # it is the result that counts
                result = getattr(self.game, method)(*arguments)
        except AssertionError as error:
            raise AssertionError(f"{self.name}.{method} {error}") from None
        except Exception as error:
            kinds = " and ".join(sorted({_kind(value) for value in copies.values()}))
            raise AssertionError(f"{self.name}.{method} raised {error!r} when called with {kinds} arrays") from error
        for name, value in kept.items():
            if not np.array_equal(_numpy(value), _numpy(copies[name]), equal_nan=True):
                raise AssertionError(f"{self.name}.{method} writes to its argument {name}; it must be a pure function")
        rows = len(next(copies[name] for name in ARGUMENTS[method] if name in "xaz"))
        expected = (rows, *(getattr(self.game, size) for size in COLUMNS.get(method, ())))
        shape = tuple(getattr(result, "shape", ()))
        self.require(
            shape == expected, method, f"must return an array of shape {expected}, got {shape} {_kind(result)}"
        )
        return result

    def require(self, holds: Any, method: str, law: str) -> None:
        """Raise an AssertionError that names the method and the law, unless it holds."""
        if not holds:
            raise AssertionError(f"{self.name}.{method}: {law}")

    def require_equal(
        self, method: str, law: str, got: Array, expected: Array, tolerance: float, share: float = 1.0
    ) -> None:
        """Require that `got` is `expected` for a share of the agents, relative to the largest number of the batch."""
        got, expected = (_numpy(value).reshape(len(value), -1).astype(np.float64) for value in (got, expected))
        self.require(got.shape == expected.shape, method, f"{law}; shape {got.shape} is not {expected.shape}")
        off = ~(np.abs(got - expected) <= tolerance * np.abs(expected).max(initial=0.0)).all(axis=1)
        if off.mean() > 1 - share:
            i = int(np.flatnonzero(off)[0])
            raise AssertionError(f"{self.name}.{method}: {law}; row {i} is {got[i]}, expected {expected[i]}")


def _kind(value: Array) -> str:
    """Such as "NumPy float64" or "PyTorch float32"."""
    library = (
        "NumPy" if isinstance(value, np.ndarray) else "PyTorch" if hasattr(value, "detach") else type(value).__name__
    )
    return f"{library} {str(getattr(value, 'dtype', '')).removeprefix('torch.')}"


def _numpy(value: Array) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


# --- the laws of each game -------------------------------------------------------------------------------------------


def check_is_a_value(case: _Case) -> None:
    """A game is a frozen dataclass: hashable, equal to what its constants make, picklable and JSON-able."""
    game = case.game
    case.require(isinstance(game, Game), "__init__", "a game must be a subclass of mfg_envs.games.Game")
    frozen = dataclasses.is_dataclass(game) and type(game).__dataclass_params__.frozen
    case.require(frozen, "__init__", "a game must be a frozen dataclass: @dataclass(frozen=True)")
    ways: dict[str, Callable[[], Game]] = {
        "built from its constants": lambda: type(game)(**game.constants),
        "pickled": lambda: pickle.loads(pickle.dumps(game)),
        "copied": lambda: copy.deepcopy(game),
        "built from its constants in JSON": lambda: type(game)(**json.loads(json.dumps(game.constants))),
    }
    for way, make in ways.items():
        try:
            twin = make()
            same = twin == game and hash(twin) == hash(game)
        except Exception as error:
            raise AssertionError(f"{case.name}: it cannot be hashed and {way}: {error!r}") from error
        case.require(same, "constants", f"a game that is {way} must be equal to it and have its hash")


def check_sizes(case: _Case) -> None:
    """dim, action_dim and horizon are positive ints; bounds are finite float64 vectors, low below high."""
    game = case.game
    for name in ("dim", "action_dim", "horizon"):
        value = getattr(game, name)
        case.require(type(value) is int and value > 0, name, f"must be a positive int, got {value!r}")
    for kind, size in (("state", game.dim), ("action", game.action_dim)):
        low, high = getattr(game, f"{kind}_low"), getattr(game, f"{kind}_high")
        for name, bound in ((f"{kind}_low", low), (f"{kind}_high", high)):
            fits = isinstance(bound, np.ndarray) and bound.shape == (size,) and bound.dtype == np.float64
            case.require(fits, name, f"must be a NumPy array of shape ({size},) and dtype float64, got {bound!r}")
            case.require(np.isfinite(bound).all(), name, f"must be finite, got {bound}")
        case.require(np.all(low < high), f"{kind}_low", f"must be below {kind}_high, got {low} and {high}")


def check_declarations(case: _Case) -> None:
    """What is declared to be read is among "mean", "log_density" and "mean_action"."""
    for name in ("reward_reads", "dynamics_reads"):
        reads = getattr(case.game, name)
        fits = isinstance(reads, frozenset) and reads <= READABLE
        case.require(fits, name, f"must be a frozenset of some of {sorted(READABLE)}, got {reads!r}")


def check_shapes_and_dtypes(case: _Case) -> None:
    """float64 arrays in, finite float64 arrays of the right shape out; booleans from `contains`."""
    for t, method in product(case.times, ARGUMENTS):
        result = case.run(method, t)
        expected = "NumPy bool" if method == "contains" else "NumPy float64"
        case.require(_kind(result) == expected, method, f"must return {expected} arrays, got {_kind(result)}")
        case.require(np.isfinite(result).all(), method, "must return finite numbers for generic arguments")


def check_what_is_no_state(case: _Case) -> None:
    """`contains` is False for NaN, for infinity, and outside the bounds."""
    low, high = case.game.state_low, case.game.state_high
    nowhere = np.stack([np.nan * low, np.full_like(low, np.inf), low - (high - low), high + (high - low)])
    law = "must be False for NaN, for infinite states and outside [state_low, state_high]"
    case.require(not case.run("contains", x=nowhere).any(), "contains", law)


def check_is_pure(case: _Case) -> None:
    """The same arrays in, the same bits out."""
    first = {(method, t): case.run(method, t) for t in case.times for method in ARGUMENTS}
    for (method, t), result in first.items():
        law = "the same arguments must give the same result, to the bit"
        case.require_equal(method, law, case.run(method, t), result, tolerance=0.0)


def check_agents_are_exchangeable(case: _Case) -> None:
    """Permuting the agents permutes the results."""
    order = np.random.default_rng(4).permutation(AGENTS)
    permuted = {name: getattr(case, name)[order] for name in "xaz"}
    for method in ARGUMENTS:
        law = "permuting the agents must permute the results"
        case.require_equal(method, law, case.run(method, **permuted), case.run(method)[order], EXACT)


def check_agents_see_the_crowd_alone(case: _Case) -> None:
    """What an agent gets depends on the crowd that the game is given, not on who else is in the batch."""
    for method, n in product(ARGUMENTS, (1, AGENTS // 2)):
        few = {name: getattr(case, name)[:n] for name in "xaz"}
        law = "an agent's result must not depend on the other agents of the batch"
        case.require_equal(method, law, case.run(method, **few), case.run(method)[:n], EXACT)


def check_actions_are_projected(case: _Case) -> None:
    """Any action, even infinite, stands for the nearest admissible one, in `step` and in `reward` too."""
    game, rng, infinite = case.game, np.random.default_rng(5), [np.inf, -np.inf]
    wild = case.actions(5 * rng.standard_normal((AGENTS, game.action_dim)))
    wild[0], wild[1], wild[2, 0], wild[3] = np.inf, -np.inf, np.inf, rng.choice(infinite, game.action_dim)
    projected = case.run("project_action", a=wild)
    low, high = game.action_low, game.action_high
    case.require(np.isfinite(projected).all(), "project_action", "infinite actions must be projected to finite ones")
    rounding = FLOAT64 * np.maximum(np.abs(low), np.abs(high))
    inside = np.all((projected >= low - rounding) & (projected <= high + rounding))
    case.require(inside, "project_action", "projected actions must be in the box [action_low, action_high]")
    again = case.run("project_action", a=projected)
    case.require_equal("project_action", "admissible actions must stay as they are", again, projected, FLOAT64)
    finite = np.isfinite(wild).all(axis=1)
    distance = np.linalg.norm(wild[finite, None] - projected, axis=-1)  # (actions, admissible actions)
    own = np.linalg.norm(wild - projected, axis=-1)[finite]
    nearest = np.all(own <= distance.min(axis=1) + 1e-9 * np.linalg.norm(high - low))
    case.require(nearest, "project_action", "must return the admissible action nearest to the given one")
    for sign, bound, name in ((1.0, high, "action_high"), (-1.0, low, "action_low")):
        far = case.actions(1e6 * sign * np.eye(game.action_dim))
        reached = np.diag(case.run("project_action", a=far))
        tight = np.allclose(reached, bound, rtol=0, atol=1e-3 * np.max(high - low))
        case.require(tight, "project_action", f"admissible actions must reach {name} {bound}, they reach {reached}")
    for method in ("step", "reward"):
        law = "an action outside the admissible ones must count as its projection"
        case.require_equal(method, law, case.run(method, a=wild), case.run(method, a=projected), FLOAT64)


def check_states_stay_in_the_state_space(case: _Case) -> None:
    """For |z| <= 10 and any actions, all states of an episode are in the state space and within its bounds."""
    game, rng = case.game, np.random.default_rng(6)
    pushes: dict[str, Callable[[int], np.ndarray]] = {
        "random": lambda size: rng.uniform(-1, 1, (AGENTS, size)),
        "extreme": lambda size: rng.choice([-1.0, 1.0], (AGENTS, size)),
        "all largest": lambda size: np.ones((AGENTS, size)),
        "all smallest": lambda size: -np.ones((AGENTS, size)),
    }
    rounding = FLOAT64 * np.maximum(np.abs(game.state_low), np.abs(game.state_high))
    for kind, push in pushes.items():
        x = case.run("initial_state", z=10 * push(game.dim))
        for t in range(game.horizon + 1):
            within = np.clip(x, game.state_low, game.state_high)  # save for the rounding of the bounds themselves
            inside = np.all(np.abs(x - within) <= rounding, axis=1) & case.run("contains", x=within)
            law = f"actions and noises |z| <= 10 ({kind}) must not lead out of the state space"
            where = f"at t = {t} an agent is at {x[~inside][:1]}, the bounds are {game.state_low} and {game.state_high}"
            case.require(inside.all(), "step" if t else "initial_state", f"{law}; {where}")
            if t < game.horizon:
                a = case.run("project_action", a=case.actions(push(game.action_dim)))
                x = case.run(
                    "step", t, x=x, a=a, z=10 * push(game.dim), mean=x.mean(axis=0), mean_action=a.mean(axis=0)
                )


def check_mass_is_conserved(case: _Case) -> None:
    """However strong the noise, nobody becomes NaN; where there is a floor, nobody leaves it or enters its walls."""
    game, rng = case.game, np.random.default_rng(7)
    x = case.x
    for t, noise in product(case.times, (1.0, 10.0, 1000.0)):
        x = case.run("step", t, x=x, z=noise * rng.standard_normal(x.shape))
        case.require(not np.isnan(x).any(), "step", "an agent must not become NaN")
        if game.floor is None:
            x = case.x
        else:
            case.require(game.floor.contains(x).all(), "step", "nobody must leave the floor or enter its walls")


def check_results_are_finite(case: _Case) -> None:
    """Rewards and next states are finite on the whole state space, for densities from 0 to e^50, crowds anywhere."""
    game, rng = case.game, np.random.default_rng(8)
    corners = np.array(list(islice(product(*zip(game.state_low, game.state_high, strict=True)), 256)))
    x = np.concatenate([corners, rng.uniform(game.state_low, game.state_high, (AGENTS, game.dim)), case.x])
    x = x[case.run("contains", x=x)]
    a, z = case.actions(rng.choice([-1.0, 0.3, 1.0], (len(x), game.action_dim))), rng.standard_normal(x.shape)
    crowds = [{"mean": game.state_low, "mean_action": game.action_high}, {"mean": game.state_high}]
    for level, crowd, t in product((-np.inf, -50.0, 0.0, 50.0), crowds, case.times):
        for method in ("step", "reward", "terminal_reward"):
            result = case.run(method, t, x=x, a=a, z=z, log_density=_flat(level), **crowd)
            law = f"must be finite on the state space, also where the log density is {level}"
            case.require(np.isfinite(result).all(), method, law)


def check_float32(case: _Case) -> None:
    """float32 in, float32 out, close to what float64 gives; the crowd's means may be float64."""
    for method in ARGUMENTS:
        _check_converted(case, method, lambda value: value.astype(np.float32), FLOAT32, MOST)


def check_torch(case: _Case) -> None:
    """PyTorch gives NumPy's numbers, whatever library the crowd's means are of."""
    if torch is None:
        return
    means: dict[str, Array] = {name: torch.as_tensor(getattr(case, name)) for name in ("mean", "mean_action")}
    for method in ARGUMENTS:
        _check_converted(case, method, torch.as_tensor, FLOAT64)
        _check_converted(case, method, torch.as_tensor, FLOAT64, **means)
        _check_converted(case, method, np.asarray, FLOAT64, **means)
        _check_converted(case, method, lambda value: torch.as_tensor(value).float(), FLOAT32, MOST)


def _check_converted(
    case: _Case,
    method: str,
    convert: Callable[[np.ndarray], Array],
    tolerance: float,
    share: float = 1.0,
    **crowd: Array,
) -> None:
    """That a method stays in the library and dtype of its arguments, and gives what it gives for NumPy's float64."""
    given = {name: convert(getattr(case, name)) for name in "xaz"}
    result = case.run(method, **given, **crowd)
    kind, got = _kind(given["x"]), _kind(result)
    expected = f"{kind.split()[0]} bool" if method == "contains" else kind
    case.require(got == expected, method, f"{kind} arrays in must give {expected} arrays out, got {got}")
    law = f"{kind} arrays must give what NumPy float64 arrays give"
    case.require_equal(method, law, result, case.run(method), tolerance, share)


def check_gradients(case: _Case) -> None:
    """Gradients under PyTorch are finite, and equal to central finite differences save at kinks."""
    if torch is None:
        return
    rng = np.random.default_rng(9)
    for t, method in product(case.times, ("initial_state", "step", "reward", "terminal_reward", "project_action")):
        tensors = {name: torch.as_tensor(getattr(case, name)) for name in "xaz"}
        leaves = {name: tensors[name].requires_grad_() for name in ARGUMENTS[method] if name in tensors}
        result = case.run(method, t, **tensors)
        weights = rng.standard_normal(result.shape)
        total = (result * torch.as_tensor(weights)).sum()
        if total.requires_grad:
            total.backward()
        for name, leaf in leaves.items():
            got = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            case.require(np.isfinite(got).all(), method, f"PyTorch's gradients in {name} must be finite")
            law = f"PyTorch's gradients in {name} must be those of finite differences"
            expected, noise = _differences(case, method, t, name, weights)
            tolerance = 1e-4 + noise / max(np.abs(expected).max(), 1e-300)
            case.require_equal(method, law, got, expected, tolerance, MOST)


def _differences(case: _Case, method: str, t: int, name: str, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Central differences of the weighted sum of an agent's results in its own argument `name`, and their rounding."""
    value = getattr(case, name)
    h = 1e-6 * max(1.0, np.abs(value).max())

    def weighted(change: np.ndarray) -> np.ndarray:
        return (weights * case.run(method, t, **{name: value + change})).reshape(AGENTS, -1).sum(axis=1)

    ups = np.stack([weighted(h * direction) for direction in np.eye(value.shape[1])], axis=1)
    downs = np.stack([weighted(-h * direction) for direction in np.eye(value.shape[1])], axis=1)
    return (ups - downs) / (2 * h), float(1e-15 * np.abs(ups).max() / h)


# --- the laws of all instances together ------------------------------------------------------------------------------


def check_reads_have_an_effect(cases: list[_Case]) -> None:
    """What is declared to be read of the crowd makes a difference, in at least one of the games."""
    for method, declared in (("reward", "reward_reads"), ("step", "dynamics_reads")):
        for name in sorted(set().union(*(getattr(case.game, declared) for case in cases))):
            changed = any(_crowd_matters(case, method, name) for case in cases if name in case.reads(method))
            law = f'declares "{name}", which has no effect on {method} in any of the given games'
            cases[0].require(changed, declared, law)


def _crowd_matters(case: _Case, method: str, name: str) -> bool:
    """Whether a method's result changes with what the crowd has as `name`."""
    game = case.game
    other = {
        "mean": case.mean + 0.1 * (game.state_high - game.state_low),
        "mean_action": case.mean_action + 0.1 * (game.action_high - game.action_low),
        "log_density": lambda x: case.log_density(x) + 0.5,
    }[name]
    methods = ("reward", "terminal_reward") if method == "reward" else (method,)
    return any(
        not np.array_equal(case.run(each, t), case.run(each, t, **{name: other}))
        for each in methods
        for t in range(game.horizon)
    )


def check_fields_have_an_effect(cases: list[_Case]) -> None:
    """Every field makes a difference to something that one can see, in at least one of the games."""
    for field in dataclasses.fields(cases[0].game):  # type: ignore[arg-type]
        values = [getattr(case.game, field.name) for case in cases]
        if all(isinstance(value, str) for value in values) and len(set(values)) == 1:
            continue
        law = f"the field is {values[0]!r} in all of the given games; give one in which it is set"
        cases[0].require(any(value is not None and value != () for value in values), field.name, law)
        varied = [(case, other) for case in cases for other in _variations(case.game, field.name, values)]
        law = f"all variations of the field were refused; give a game in which it can be varied ({values[0]!r})"
        cases[0].require(varied, field.name, law)
        changed = any(_differ(case, other) for case, other in varied)
        law = "the field has no effect on anything that one can see, in any of the given games"
        cases[0].require(changed, field.name, law)


def _variations(game: Game, name: str, values: list[Any]) -> Iterator[Game]:
    """The game with another value in the field `name`: a larger one or, if it is refused, a smaller one."""
    value = getattr(game, name)
    others = [v for v in values if v != value] if isinstance(value, str) else [_moved(value, 1), _moved(value, -1)]
    for other in others:
        if other == value:
            continue
        try:
            yield type(game)(**{**game.constants, name: other})
        except ValueError:
            continue
        return


def _moved(value: Any, sign: int) -> Any:
    """Numbers moved by 10 % or by 1, in tuples one by one; anything else as it is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + sign
    if isinstance(value, float):
        return value + sign * 0.1 * (abs(value) or 1.0)
    return tuple(_moved(v, sign) for v in value) if isinstance(value, tuple) else value


def _differ(case: _Case, game: Game) -> bool:
    """Whether anything that one can see of the game is other than in the case."""
    return any(
        not np.array_equal(one, other)
        for one, other in zip(_sights(case, case), _sights(case, _Case(game)), strict=False)
    )


def _sights(case: _Case, seen: _Case) -> Iterator[np.ndarray]:
    """All that one can see of the game `seen` with the arguments of `case`: what decides the shapes comes first."""
    game, own = seen.game, case.game
    yield np.array([game.dim, game.action_dim, game.horizon])
    yield np.concatenate([game.state_low, game.state_high, game.action_low, game.action_high])
    anywhere = np.random.default_rng(10).uniform(own.state_low, own.state_high, (4096, own.dim))
    yield seen.run("contains", x=np.concatenate([anywhere, case.x]))
    arguments = {name: getattr(case, name) for name in ("x", "a", "z", "mean", "mean_action", "log_density")}
    for method in ("initial_state", "project_action", "terminal_reward"):
        yield seen.run(method, **arguments)
    for t, method in product(range(own.horizon), ("step", "reward")):
        yield seen.run(method, t, **arguments)


LAWS_OF_EACH: tuple[Callable[[_Case], None], ...] = (
    check_is_a_value,
    check_sizes,
    check_declarations,
    check_shapes_and_dtypes,
    check_what_is_no_state,
    check_is_pure,
    check_agents_are_exchangeable,
    check_agents_see_the_crowd_alone,
    check_actions_are_projected,
    check_states_stay_in_the_state_space,
    check_mass_is_conserved,
    check_results_are_finite,
    check_float32,
    check_torch,
    check_gradients,
)
LAWS_OF_ALL: tuple[Callable[[list[_Case]], None], ...] = (check_reads_have_an_effect, check_fields_have_an_effect)
