"""All games obey the contract, the kit notices every breach of it, and the documented example works."""

import importlib
import re
import traceback
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from mfg_envs import testing
from mfg_envs.games import GAMES, BeachBar, FourRooms, Game, LinearQuadratic, PriceImpact
from mfg_envs.games.base import like
from mfg_envs.testing import Probe, bell, check_game

DOCS = Path(__file__).parents[1] / "docs"
WALLS = (((-0.2, -0.3), (0.1, 0.4)), ((0.5, -1.0), (0.6, 0.2)))

INSTANCES = {
    "LinearQuadratic": [
        LinearQuadratic(),
        LinearQuadratic(dim=2, A=(0.9, -0.5), B=(0.2, -0.4), A_bar=(0.1, -0.3), x_target=(1.0, -2.0), m0=(-1.0, 0.5)),
        LinearQuadratic(
            dim=2,
            A=((0.9, -0.4), (0.3, 0.7)),
            B=((0.2, 0.1, -0.3), (0.0, -0.5, 0.2)),
            A_bar=((0.1, -0.2), (0.05, 0.3)),
            horizon=5,
        ),
        LinearQuadratic(dim=3, B=((1.0,), (-0.5,), (0.25,)), sigma=0.0, s0=0.0, horizon=1),
    ],
    "BeachBar": [
        BeachBar(),
        BeachBar(dt=2.0, sigma=3.0, s0=1.0, horizon=5),  # many reflections a step
        BeachBar(x_bar=-1.0, m0=1.0, c_x=0.0, c_a=0.0, sigma=0.0, eps=1e-9, horizon=1),
    ],
    "FourRooms": [
        FourRooms(),
        FourRooms(crowd="congestion"),
        FourRooms(crowd="congestion", alpha=2.5, c_c=0.3, dt=0.5, sigma=1.0, horizon=6),
        FourRooms(walls=WALLS, dt=0.5, sigma=1.0, s0=0.5, horizon=6),
        FourRooms(walls=(), start=(0.0, 0.0), horizon=3),
        FourRooms(wall=0.15, door=0.0, start=(0.5, 0.5), horizon=10),
    ],
    "PriceImpact": [
        PriceImpact(),
        PriceImpact(gamma=-4.0, c_g=0.0, c_q=0.1, c_a=0.1, horizon=40),
        PriceImpact(sigma=0.0, s0=0.0, m0=0.0, horizon=1),
    ],
}


def test_every_game_is_checked():
    assert set(INSTANCES) == set(GAMES)


@pytest.mark.parametrize("games", INSTANCES.values(), ids=INSTANCES)
def test_games_obey_the_contract(games):
    check_game(*games)


@pytest.mark.parametrize("name", GAMES)
def test_games_obey_the_contract_for_random_constants(name):
    """The laws of one game, for constants far from the defaults. (Those of all instances have theirs above.)"""
    for seed in range(10):
        case = testing._Case(random_game(name, np.random.default_rng(seed)))
        for law in testing.LAWS_OF_EACH:
            law(case)


def random_game(name, rng):
    u, d, k = rng.uniform, *rng.integers(1, 4, size=2)
    common = {"horizon": int(rng.integers(1, 12)), "sigma": u(0, 1), "c_a": u(0.01, 2)}
    if name == "LinearQuadratic":
        shape = {
            "dim": int(d),
            "A": rng.normal(0, 0.6, (d, d)),
            "B": rng.normal(size=(d, k)),
            "A_bar": rng.normal(size=d),
        }
        return LinearQuadratic(**common, **shape, s0=u(0, 1), m0=rng.normal(size=d), c_x=u(0, 2), c_m=u(0, 2))
    if name == "PriceImpact":
        return PriceImpact(**common, gamma=rng.normal(0, 3), dt=u(0.01, 0.5), m0=rng.normal(0, 2), c_g=u(0, 2))
    crowded = {**common, "dt": u(0.01, 1), "eps": 10 ** u(-6, 0), "s0": u(0, 1)}
    if name == "BeachBar":
        return BeachBar(**crowded, x_bar=u(-1, 1), m0=u(-1, 1))
    rooms = {"wall": u(0.01, 0.15), "door": u(0, 0.5), "start": (u(0.2, 1), u(-1, -0.2))}
    return FourRooms(**crowded, **rooms, crowd=str(rng.choice(["entropy", "congestion"])), alpha=u(0, 3), c_c=u(0, 3))


def test_needs_games_of_one_class():
    for games in ((), (BeachBar(), PriceImpact())):
        with pytest.raises(ValueError, match="one or more instances of one class"):
            check_game(*games)


# --- broken games ----------------------------------------------------------------------------------------------------
# Each is the beach bar or the four rooms with one thing wrong.

BROKEN = {}  # class -> (message, constants of the instances)


def broken(message, *instances):
    """Decorate a class of games that `check_game` must refuse with a message that matches."""

    def note(cls):
        BROKEN[cls] = message, instances or ({},)
        return cls

    return note


class Beach(BeachBar):
    """A short beach bar, for speed."""

    def __init__(self, **constants):
        super().__init__(**{"horizon": 4, **constants})


@broken(r"must be a frozen dataclass")
class NoDataclass(Game):
    dim = action_dim = horizon = 1
    state_low = action_low = property(lambda self: np.array([-1.0]))
    state_high = action_high = property(lambda self: np.array([1.0]))

    def initial_state(self, z):
        return 0 * z

    def step(self, t, x, a, mu, z):
        return x

    def reward(self, t, x, a, mu):
        return x[:, 0]


@broken(r"must be a frozen dataclass")
@dataclass
class NotFrozen(NoDataclass):
    pass


@broken(r"must be a subclass of mfg_envs\.games\.Game")
@dataclass(frozen=True)
class NoGame:
    horizon: int = 1


@broken(r"cannot be hashed and built from its constants: .*unhashable")
@dataclass(frozen=True)
class Unhashable(BeachBar):
    lanes: list = field(default_factory=list)


@broken(r"constants: a game that is built from its constants must be equal")
@dataclass(frozen=True)
class NotWhatItsConstantsMake(BeachBar):
    def __post_init__(self):
        object.__setattr__(self, "c_x", self.c_x + 1.0)


@broken(r"cannot be hashed and pickled")
@dataclass(frozen=True)
class Unpicklable(BeachBar):
    weight: object = field(default_factory=lambda: lambda x: x)


@broken(r"built from its constants in JSON")
@dataclass(frozen=True)
class ForgetsItsTuples(BeachBar):
    lanes: tuple = (1.0, 2.0)  # JSON makes a list of it


@broken(r"dim: must be a positive int, got 1\.0")
class SizeOfAnotherKind(Beach):
    dim: ClassVar = 1.0


@broken(r"state_low: must be a NumPy array of shape \(1,\) and dtype float64")
class BoundOfAnotherShape(Beach):
    state_low = property(lambda self: np.array(-1.0))


@broken(r"action_high: must be a NumPy array of shape \(1,\) and dtype float64")
class BoundOfAnotherDtype(Beach):
    action_high = property(lambda self: np.array([1], dtype=np.float32))


@broken(r"state_high: must be finite")
class UnboundedStates(Beach):
    state_high = property(lambda self: np.array([np.inf]))


@broken(r"action_low: must be below action_high")
class EmptyBox(Beach):
    action_low = property(lambda self: np.array([1.0]))


@broken(r"dynamics_reads: must be a frozenset of some of .*got \{'mean'\}")
class DeclaresAList(Beach):
    dynamics_reads = {"mean"}


@broken(r"reward_reads: must be a frozenset of some of \['log_density', 'mean', 'mean_action'\]")
class DeclaresSomethingElse(Beach):
    reward_reads = frozenset({"log_density", "variance"})


@broken(r"reward: must return an array of shape \(128,\), got \(128, 1\) NumPy float64")
class RewardOfAnotherShape(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu)[:, None]


@broken(r"step: must return an array of shape \(128, 1\), got \(64, 1\) NumPy float64")
class LosesAgents(Beach):
    def step(self, t, x, a, mu, z):
        return super().step(t, x, a, mu, z)[::2]


@broken(r"terminal_reward: must return an array of shape \(128,\), got \(\) float")
class RewardsWithANumber(Beach):
    def terminal_reward(self, x, mu):
        return 0.0


@broken(r"contains: must return NumPy bool arrays, got NumPy float64")
class ContainsInNumbers(Beach):
    def contains(self, x):
        return 1.0 * super().contains(x)


@broken(r"reward: must return finite numbers for generic arguments")
class NotANumber(Beach):
    def reward(self, t, x, a, mu):
        return np.nan * super().reward(t, x, a, mu)


@broken(r"step raised IndexError\(.*\) when called with NumPy float64 arrays")
class RaisesAtTheEnd(Beach):
    def step(self, t, x, a, mu, z):
        return super().step(t, x, a, mu, z) + 0 * (1.0, 2.0, 3.0)[t]


@broken(r"contains: must be False for NaN")
class ContainsEverything(Beach):
    def contains(self, x):
        return array_namespace(x).ones_like(x[:, 0]) > 0


@broken(r"reward reads mu\.mean, which it does not declare")
class UndeclaredRead(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) - like(mu.mean, x)[0]


@broken(r"step reads mu\.log_density, which it does not declare")
class UndeclaredReadOfAnotherMethod(Beach):
    def step(self, t, x, a, mu, z):
        return super().step(t, x, a, mu, z + mu.log_density(x)[:, None])


@broken(r"reward reads mu\.sample, which it does not declare")
class PeeksAtTheCrowd(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) + len(getattr(mu, "sample", ()))


@broken(r"terminal_reward reads mu\.mean_action, which it does not declare")
class ActsAtTheEnd(PriceImpact):
    def terminal_reward(self, x, mu):
        return super().terminal_reward(x, mu) * like(mu.mean_action, x)[0]


@broken(r"step writes to its argument x; it must be a pure function")
class WritesToStates(Beach):
    def step(self, t, x, a, mu, z):
        x += self.project_action(a) * self.dt
        return super().step(t, x, 0 * a, mu, z)


@broken(r"reward writes to its argument mean_action")
class WritesToTheCrowd(PriceImpact):
    def reward(self, t, x, a, mu):
        mean_action = mu.mean_action
        mean_action *= 0.5
        return super().reward(t, x, a, mu)


@broken(r"initial_state: the same arguments must give the same result, to the bit")
class DrawsItsOwnNoise(Beach):
    def initial_state(self, z):
        return super().initial_state(np.random.default_rng().standard_normal(z.shape))


@broken(r"reward: the same arguments must give the same result, to the bit")
class RemembersCalls(Beach):
    calls = []

    def reward(self, t, x, a, mu):
        self.calls.append(t)
        return super().reward(t, x, a, mu) + 1e-9 * len(self.calls)


@broken(r"reward: permuting the agents must permute the results")
class FavoursTheFirst(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) - (x - x[:1])[:, 0] ** 2


@broken(r"step: an agent's result must not depend on the other agents of the batch")
class TakesTheBatchForTheCrowd(Beach):
    def step(self, t, x, a, mu, z):
        return super().step(t, x, a, mu, z + array_namespace(x).mean(x))


@broken(r"step: an action outside the admissible ones must count as its projection")
class ForgetsToProjectInStep(Beach):
    def step(self, t, x, a, mu, z):
        xp = array_namespace(x)
        return self.floor.reflect(x, xp.tanh(a) * self.dt + self.sigma * self.dt**0.5 * z)


@broken(r"reward: an action outside the admissible ones must count as its projection")
class ForgetsToProjectInReward(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) - array_namespace(a).tanh(a)[:, 0] ** 2


@broken(r"project_action: infinite actions must be projected to finite ones")
class LetsInfinityThrough(Beach):
    def project_action(self, a):
        xp = array_namespace(a)
        return a / xp.maximum(xp.abs(a), xp.ones_like(a))


@broken(r"project_action: projected actions must be in the box")
class ProjectsOutsideTheBox(Beach):
    def project_action(self, a):
        return 2 * super().project_action(a)


@broken(r"project_action: admissible actions must stay as they are")
class ShrinksActions(Beach):
    def project_action(self, a):
        return 0.5 * super().project_action(a)


@broken(r"project_action: must return the admissible action nearest to the given one")
class ProjectsToTheOtherSide(Beach):
    def project_action(self, a):
        xp = array_namespace(a)
        return xp.where(xp.abs(a) > 1, -super().project_action(a), a)


@broken(r"project_action: admissible actions must reach action_high \[1\.\], they reach \[0\.5\]")
class BoxTooWide(Beach):
    def project_action(self, a):
        xp = array_namespace(a)
        return xp.minimum(super().project_action(a), 0.5 * xp.ones_like(a))


@broken(r"step: actions and noises \|z\| <= 10 .* must not lead out of the state space; at t = 1")
class LeavesTheBeach(Beach):
    contains = Game.contains
    floor = property(lambda self: None)
    state_low = property(lambda self: np.array([-1.0]))
    state_high = property(lambda self: np.array([1.0]))

    def step(self, t, x, a, mu, z):
        return x + self.project_action(a) * self.dt + self.sigma * self.dt**0.5 * z


@broken(r"initial_state: actions and noises \|z\| <= 10 .* must not lead out of the state space; at t = 0")
class StartsOffTheBeach(Beach):
    def initial_state(self, z):
        return self.m0 + self.s0 * z


@broken(r"step: actions and noises \|z\| <= 10 .* must not lead out of the state space")
class WalksIntoWalls(FourRooms):
    def step(self, t, x, a, mu, z):
        xp = array_namespace(x)
        x = x + self.project_action(a) * self.dt + self.sigma * self.dt**0.5 * z
        return xp.minimum(xp.maximum(x, -xp.ones_like(x)), xp.ones_like(x))


@broken(r"step: nobody must leave the floor or enter its walls")
class WalksIntoWallsInAHurry(FourRooms):
    def step(self, t, x, a, mu, z):
        xp = array_namespace(x)
        hurry = xp.any(xp.abs(z) > 20, axis=-1)[:, None]
        return xp.where(hurry, xp.zeros_like(x), super().step(t, x, a, mu, z))


@broken(r"step: an agent must not become NaN")
class BreaksDownInAHurry(Beach):
    def step(self, t, x, a, mu, z):
        xp = array_namespace(x)
        return xp.where(xp.abs(z) > 50, np.nan * x, super().step(t, x, a, mu, z))


@broken(r"reward: must be finite on the state space, also where the log density is -inf")
class NoDensityNoReward(Beach):
    def reward(self, t, x, a, mu):
        return -self.dt * self.c_m * mu.log_density(x) + 0 * super().reward(t, x, a, mu)


@broken(r"reward: must be finite on the state space")
class PoleAtTheEnd(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) - 1 / (1 - x[:, 0])


@broken(r"initial_state: NumPy float32 arrays in must give NumPy float32 arrays out, got NumPy float64")
class AlwaysDouble(Beach):
    def initial_state(self, z):
        return super().initial_state(z) + like(np.zeros(1), z.astype(np.float64) if isinstance(z, np.ndarray) else z)


@broken(r"reward: NumPy float32 arrays must give what NumPy float64 arrays give")
class LosesDigits(Beach):
    def reward(self, t, x, a, mu):
        big = 1e6  # no room beside it for the digits of the reward
        return (super().reward(t, x, a, mu) + big) - big


@broken(r"step raised .* when called with PyTorch float64 arrays")
class NumPyOnly(Beach):
    def step(self, t, x, a, mu, z):
        return super().step(t, x, a, mu, z.astype(x.dtype))


@broken(r"reward: PyTorch float64 arrays in must give PyTorch float64 arrays out, got NumPy float64")
class AnswersInNumPy(Beach):
    def reward(self, t, x, a, mu):
        return np.asarray(super().reward(t, x, a, mu))


@broken(r"reward: PyTorch float64 arrays must give what NumPy float64 arrays give")
class AnotherGameUnderPyTorch(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) * (1 if isinstance(x, np.ndarray) else 1 + 1e-9)


@broken(r"reward: NumPy float32 arrays in must give NumPy float32 arrays out, got NumPy float64")
class TakesTheCrowdsDtype(PriceImpact):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) + array_namespace(x).sum(x * mu.mean_action, axis=-1)


@broken(r"reward raised TypeError\(.*\) when called with NumPy float64 and PyTorch float64 arrays")
class TakesTheCrowdsLibrary(PriceImpact):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) * mu.mean_action.astype(x.dtype)[0]


@broken(r"reward: PyTorch's gradients in x must be those of finite differences")
class CutsTheGradient(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x.detach() if isinstance(x, torch.Tensor) else x, a, mu)


@broken(r"step: PyTorch's gradients in a must be those of finite differences")
class RoundsActions(Beach):
    def step(self, t, x, a, mu, z):
        scale = 1e9  # finer than differences can tell
        return super().step(t, x, array_namespace(a).round(a * scale) / scale, mu, z)


@broken(r"reward: PyTorch's gradients in x must be finite")
class RootOfZero(Beach):
    def reward(self, t, x, a, mu):
        return super().reward(t, x, a, mu) - array_namespace(x).sqrt((x - x) ** 2)[:, 0]


@broken(r'reward_reads: declares "mean", which has no effect on reward in any of the given games')
class DeclaresTooMuch(Beach):
    reward_reads = frozenset({"log_density", "mean"})


@broken(r'dynamics_reads: declares "mean_action", which has no effect on step')
class DeclaresForStep(Beach):
    dynamics_reads = frozenset({"mean_action"})


@broken(r"c_wind: the field has no effect on anything that one can see", {}, {"c_wind": 0.0})
@dataclass(frozen=True)
class FieldWithoutEffect(BeachBar):
    horizon: int = 3
    c_wind: float = 1.0


@broken(r"c_x: the field has no effect", {"crowd": "entropy"})
class OneInstanceIsNotEnough(FourRooms):
    pass


@broken(r"kind: the field has no effect", {"kind": "sand"}, {"kind": "pebbles"})
@dataclass(frozen=True)
class NameWithoutEffect(BeachBar):
    horizon: int = 3
    kind: str = "sand"


@broken(r"walls: the field is None in all of the given games; give one in which it is set", {"crowd": "congestion"}, {})
class NeverSet(FourRooms):
    pass


@broken(r"lanes: all variations of the field were refused")
@dataclass(frozen=True)
class RefusesEverything(BeachBar):
    horizon: int = 3
    lanes: int = 2

    def __post_init__(self):
        super().__post_init__()
        if self.lanes != 2:
            raise ValueError("lanes must be 2")


@cache
def refusal(cls):
    """The error that `check_game` raises for a broken game."""
    with pytest.raises(AssertionError) as caught:
        check_game(*(cls(**constants) for constants in BROKEN[cls][1]))
    return caught.value


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_broken_games_are_refused(cls):
    message = str(refusal(cls))
    assert message.startswith(cls.__name__)
    assert re.search(BROKEN[cls][0], message), message


def test_every_law_refuses_some_broken_game():
    for law in (*testing.LAWS_OF_EACH, *testing.LAWS_OF_ALL):
        codes = {frame.f_code for cls in BROKEN for frame, _ in traceback.walk_tb(refusal(cls).__traceback__)}
        assert law.__code__ in codes, law.__name__


def test_without_pytorch_its_laws_are_skipped(monkeypatch):
    with pytest.raises(AssertionError):
        check_game(NumPyOnly())
    monkeypatch.setattr(testing, "torch", None)
    check_game(NumPyOnly())


def test_fields_that_are_refused_larger_are_tried_smaller():
    """m0 = 1 and x_bar = -1 are the ends of the beach."""
    check_game(BeachBar(m0=1.0, x_bar=-1.0, horizon=3))


# --- the crowd of the kit --------------------------------------------------------------------------------------------


def test_probe_knows_what_it_is_told():
    mu = Probe(mean=np.array([1.0]), log_density=bell(np.array([0.0, 1.0]), np.array([1.0, 2.0])))
    assert mu.mean.tolist() == [1.0]
    for unknown in ("mean_action", "sample", "anything"):
        with pytest.raises(AssertionError, match=rf"reads mu\.{unknown}, which it does not declare"):
            getattr(mu, unknown)
    x = np.array([[0.0, 1.0], [1.0, 3.0]])
    for points in (x, torch.as_tensor(x)):
        by_hand = -np.log(2 * np.pi * 2) - np.array([0.0, 1.0])
        np.testing.assert_allclose(np.asarray(mu.log_density(points)), by_hand, rtol=1e-14)
    assert mu.log_density(torch.as_tensor(x).float()).dtype == torch.float32


# --- the documented example ------------------------------------------------------------------------------------------


def test_your_own_game(tmp_path, monkeypatch, capsys):
    """All code blocks of docs/your_own_game.md, run one after the other as one module."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "your_own_game.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "your_own_game.py").write_text("\n\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("your_own_game")
    mean, _, difference = map(float, capsys.readouterr().out.split())
    assert mean == pytest.approx(1.0, abs=0.01)
    assert difference < 0
    game = blocks[0].split("@dataclass")[1].split("\n\n", 1)[1]
    assert len([line for line in game.splitlines() if line.strip()]) <= 30
    assert isinstance(module.game, Game)
