"""The PettingZoo and Gymnasium environments and the simulator, over the linear-quadratic game and one with a finale."""

import copy
import inspect
import math
import pickle
import re
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics

from mfg_envs import ENVIRONMENTS, lq_v0
from mfg_envs.envs import CrowdParallelEnv, CrowdVectorEnv, simulate
from mfg_envs.equilibrium import AffinePolicy, solve
from mfg_envs.games import Game, LinearQuadratic
from mfg_envs.mean_field import Empirical, Gaussian

with warnings.catch_warnings():  # PettingZoo's own tests import its deprecated modules
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test, state_test

SHORT = {"horizon": 4}
WIDE = {"dim": 2, "B": ((0.2, 0.1, 0.0), (0.0, -0.3, 0.4)), "horizon": 4}  # d = 2, k = 3


@dataclass(frozen=True)
class Finale(Game):
    """x' = x + a + z, r = -|a|^2 + x . (mean action), g = 100 - |x - m_T|^2: a game that ends with a reward."""

    horizon: int = 3
    dim: int = 1
    action_dim: int = 1

    reward_reads = frozenset({"mean", "mean_action"})

    state_low = property(lambda self: np.full(1, -100.0))
    state_high = property(lambda self: np.full(1, 100.0))
    action_low = property(lambda self: np.full(1, -1.0))
    action_high = property(lambda self: np.full(1, 1.0))

    def initial_state(self, z):
        return z

    def step(self, t, x, a, mu, z):
        return x + self.project_action(a) + z

    def reward(self, t, x, a, mu):
        a = self.project_action(a)
        return -(a**2).sum(axis=-1) + (x * mu.mean_action).sum(axis=-1)

    def terminal_reward(self, x, mu):
        return 100 - ((x - mu.mean) ** 2).sum(axis=-1)


def frozen(game, mean=0.5):
    """A crowd that stands around `mean`."""
    steps, d = game.horizon + 1, game.dim
    return Gaussian(
        np.full((steps, d), mean), np.tile(np.eye(d), (steps, 1, 1)), np.zeros((steps - 1, game.action_dim))
    )


def draw_actions(env, rng, bound=10.0):
    size = env.action_space("agent_0").shape
    return {agent: rng.uniform(-bound, bound, size).astype(np.float32) for agent in env.possible_agents}


def play(env, steps, rng):
    """All that `steps` random steps return, and the states, as nested lists that compare to the bit."""
    record = []
    for _ in range(steps):
        observations, *rest = env.step(draw_actions(env, rng))
        record.append(({agent: o.tolist() for agent, o in observations.items()}, *rest, env.state().tolist()))
    return record


def as_dict(array):
    return {f"agent_{i}": row for i, row in enumerate(array)}


# --- other people's conformance tests ------------------------------------------------------------------------------

makers = pytest.mark.parametrize("constants", [SHORT, WIDE], ids=["one-dimensional", "two-dimensional"])
# PettingZoo takes two-dimensional arrays for pictures, which are never negative.
negative_is_no_error = pytest.mark.filterwarnings("ignore:The state contains negative numbers:UserWarning")


@makers
@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_pettingzoo_parallel(constants, in_a_frozen_crowd, capsys):
    mean_field = frozen(LinearQuadratic(**constants)) if in_a_frozen_crowd else None

    def make():
        return lq_v0.parallel_env(num_agents=5, mean_field=mean_field, **constants)

    parallel_api_test(make(), num_cycles=20)
    parallel_seed_test(make)


@makers
@negative_is_no_error
def test_pettingzoo_aec(constants, capsys):
    def make():
        return lq_v0.env(num_agents=5, **constants)

    api_test(make(), num_cycles=20)
    seed_test(make, num_cycles=20)
    state_test(make(), lq_v0.parallel_env(num_agents=5, **constants), num_cycles=20)


@pytest.mark.parametrize("number", [1, 2, 20])
def test_any_number_of_agents(number, capsys):
    parallel_api_test(lq_v0.parallel_env(num_agents=number, **SHORT), num_cycles=10)


def test_registries():
    assert ENVIRONMENTS["mfg_envs/lq-v0"] == "mfg_envs.lq_v0"
    parallel = pettingzoo.make("parallel", "mfg_envs/lq-v0", num_agents=3, **SHORT)
    aec = pettingzoo.make("aec", "mfg_envs/lq-v0", num_agents=3, **SHORT)
    assert parallel.unwrapped.game == aec.unwrapped.game == LinearQuadratic(**SHORT)
    assert str(parallel) == str(parallel.unwrapped) == "lq_v0"
    actions = draw_actions(parallel, np.random.default_rng(0))
    parallel.reset(seed=1)
    aec.reset(seed=1)
    observations, rewards, *_ = parallel.step(actions)
    for agent in actions:
        aec.step(actions[agent])
    assert aec.rewards == rewards
    for agent in actions:
        np.testing.assert_array_equal(aec.observe(agent), observations[agent])


def test_module_functions():
    assert set(lq_v0.__all__) == {"env", "parallel_env", "raw_env", "vector_env"}
    assert list(inspect.signature(lq_v0.parallel_env).parameters) == [
        "num_agents",
        "mean_field",
        "render_mode",
        "bandwidth",
        "constants",
    ]
    environment = lq_v0.parallel_env()
    assert isinstance(environment, CrowdParallelEnv)
    assert environment.max_num_agents == 100
    assert environment.game == LinearQuadratic()
    assert lq_v0.vector_env(num_envs=3, c_x=0.25).game == LinearQuadratic(c_x=0.25)
    metadata = environment.metadata
    assert metadata["name"] == "lq_v0"
    assert metadata["is_parallelizable"] is True
    assert isinstance(metadata["render_modes"], list)
    assert CrowdParallelEnv(LinearQuadratic()).metadata["name"] != "lq_v0"  # one's name is not everyone's
    assert all(getattr(lq_v0, name).__doc__ for name in lq_v0.__all__)


@pytest.mark.parametrize("make", [lq_v0.parallel_env, lq_v0.vector_env])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("number", number) for number in (0, -1, 2.5, True, "3")),
        ("render_mode", "human_"),
        ("mean_field", frozen(LinearQuadratic(horizon=7))),
        ("c_x", -1.0),
    ],
)
def test_bad_arguments(make, argument, value):
    name = argument if argument != "number" else next(iter(inspect.signature(make).parameters))
    with pytest.raises(ValueError, match=r"num_agents|num_envs" if argument == "number" else argument.split("_")[0]):
        make(**{name: value})


def test_unknown_constant_is_no_constant():
    with pytest.raises(TypeError, match="c_y"):
        lq_v0.parallel_env(c_y=1.0)


# --- what an episode looks like ------------------------------------------------------------------------------------


@makers
def test_an_episode(constants):
    env = lq_v0.parallel_env(num_agents=5, **constants)
    names, T, rng = [f"agent_{i}" for i in range(5)], constants["horizon"], np.random.default_rng(0)
    assert env.possible_agents == names
    assert env.agents == []
    observations, infos = env.reset(seed=3)
    for t in range(T + 1):
        assert list(observations) == list(infos) == names
        assert infos == {agent: {} for agent in names}
        for agent, observation in observations.items():
            space = env.observation_space(agent)
            assert observation.dtype == space.dtype == np.float32
            assert space.contains(observation)
            assert observation[-1] == np.float32(t / T)
        assert env.state().dtype == np.float32
        assert env.state_space.contains(env.state())
        np.testing.assert_array_equal(env.state(), np.stack(list(observations.values()))[:, :-1])
        assert env.agents == (names if t < T else [])
        if t == T:
            break
        observations, rewards, terminations, truncations, infos = env.step(draw_actions(env, rng))
        for by_agent, kind in ((rewards, float), (terminations, bool), (truncations, bool)):
            assert list(by_agent) == names
            assert {type(value) for value in by_agent.values()} == {kind}
        assert set(terminations.values()) == {t + 1 == T}
        assert set(truncations.values()) == {False}
        assert all(map(math.isfinite, rewards.values()))
    observations, _ = env.reset()
    assert env.agents == names
    assert env.agents is not env.possible_agents
    assert observations["agent_0"][-1] == 0


@makers
def test_spaces(constants):
    env = lq_v0.parallel_env(num_agents=3, **constants)
    game = env.game
    assert env.observation_space("agent_0") is env.observation_space("agent_2")
    assert env.action_space("agent_0") is env.action_space("agent_2")
    for space, low, high in (
        (env.action_space("agent_0"), game.action_low, game.action_high),
        (env.observation_space("agent_0"), [*game.state_low, 0], [*game.state_high, 1]),
        (env.state_space, np.tile(game.state_low, (3, 1)), np.tile(game.state_high, (3, 1))),
    ):
        assert space.dtype == np.float32
        assert np.all(np.isfinite(space.low) & np.isfinite(space.high))
        np.testing.assert_array_equal(space.low, np.asarray(low, dtype=np.float32))
        np.testing.assert_array_equal(space.high, np.asarray(high, dtype=np.float32))


def test_transitions_are_the_games():
    """Rewards and next states are those of the equations at m_t, the mean of all agents, to float32 of the states."""
    game = LinearQuadratic(horizon=6, dim=2, sigma=0.0)
    env = CrowdParallelEnv(game, 7)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 2))
    env.reset(seed=0, options={"initial_state": x})
    for _ in range(6):
        actions = draw_actions(env, rng)
        a, m = np.stack(list(actions.values())).astype(float), x.mean(axis=0)
        _, rewards, *_ = env.step(actions)
        by_hand = -0.5 * ((x - 1) ** 2).sum(1) - 0.1 * (a**2).sum(1) - 0.5 * ((x - m) ** 2).sum(1)
        np.testing.assert_allclose(list(rewards.values()), by_hand, rtol=1e-12)
        x = 0.9 * x + 0.2 * a + 0.1 * m
        np.testing.assert_array_equal(env.state(), x.astype(np.float32))


@makers
@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_seeds_make_whole_episodes(constants, in_a_frozen_crowd):
    mean_field = frozen(LinearQuadratic(**constants)) if in_a_frozen_crowd else None

    def episode(seed, env=None):
        env = env or lq_v0.parallel_env(num_agents=4, mean_field=mean_field, **constants)
        env.reset(seed=seed)
        return env.state().tolist(), play(env, 4, np.random.default_rng(0))

    used = lq_v0.parallel_env(num_agents=4, mean_field=mean_field, **constants)
    used.reset(seed=9)
    play(used, 3, np.random.default_rng(5))
    assert episode(1) == episode(1) == episode(1, used)
    assert episode(1)[0] != episode(2)[0]
    first, second = episode(1)[1], episode(2)[1]
    assert all(one[0] != other[0] and one[1] != other[1] for one, other in zip(first, second, strict=True))


def test_unseeded_episodes_go_on_with_the_stream():
    """reset() after reset(seed=s) is another episode, and the same one each time; without any seed it is fresh."""
    runs = []
    for seed in (1, 1, None, None):
        env = lq_v0.parallel_env(num_agents=4, **SHORT)
        env.reset(seed=seed)
        first = play(env, 4, np.random.default_rng(0))
        env.reset()
        runs.append((first, play(env, 4, np.random.default_rng(0))))
        assert first != runs[-1][1]
    assert runs[0] == runs[1]
    assert runs[2] != runs[3]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
@pytest.mark.parametrize("steps", [0, 2])
def test_clones_go_on_identically(clone, steps):
    env = lq_v0.parallel_env(num_agents=4, mean_field=frozen(LinearQuadratic(**SHORT)), **SHORT)
    env.reset(seed=1)
    play(env, steps, np.random.default_rng(0))
    twin = clone(env)
    kept = env.state()
    ahead = play(twin, 4 - steps, np.random.default_rng(2))
    np.testing.assert_array_equal(env.state(), kept)  # what the twin does is no matter of the original
    assert play(env, 4 - steps, np.random.default_rng(2)) == ahead
    assert env.agents == twin.agents == []
    env.reset()
    twin.reset()
    assert play(env, 4, np.random.default_rng(3)) == play(twin, 4, np.random.default_rng(3))


def test_what_is_returned_and_passed_in_belongs_to_the_caller():
    clean, messy = (lq_v0.parallel_env(num_agents=3, **SHORT) for _ in range(2))
    x = np.linspace(-1, 1, 3)[:, None]
    clean.reset(seed=1, options={"initial_state": x.copy()})
    returned = messy.reset(seed=1, options={"initial_state": x})
    x[:] = 77
    for step in range(4):
        for by_agent in returned:
            for value in by_agent.values():
                if isinstance(value, np.ndarray):
                    value[:] = 55
                elif isinstance(value, dict):
                    value["note"] = 1
            by_agent.clear()
        messy.state()[:] = 33
        actions = draw_actions(messy, np.random.default_rng(step))
        expected = clean.step(copy.deepcopy(actions))
        returned = messy.step(actions)
        np.testing.assert_equal(returned, expected)
        for action in actions.values():
            action[:] = 99
    assert messy.possible_agents == clean.possible_agents


# --- bad input -----------------------------------------------------------------------------------------------------


def without(actions, agent):
    return {name: action for name, action in actions.items() if name != agent}


BAD_ACTIONS = {
    "missing agent": (lambda a: without(a, "agent_2"), "agent_2"),
    "two missing": (lambda a: without(without(a, "agent_2"), "agent_1"), "agent_1"),
    "unknown agent": (lambda a: {**a, "agent_7": a["agent_0"]}, "agent_7"),
    "renamed agent": (lambda a: {**without(a, "agent_1"), "agent_7": a["agent_0"]}, "agent_1|agent_7"),
    "NaN": (lambda a: {**a, "agent_2": np.array([0.0, np.nan, 0.0])}, "agent_2"),
    "too long": (lambda a: {**a, "agent_1": np.zeros(4)}, "agent_1"),
    "one long, one empty": (lambda a: {**a, "agent_1": np.zeros(6), "agent_2": np.zeros(0)}, "agent_1"),
    "one long, one short": (lambda a: {**a, "agent_1": np.zeros(4), "agent_2": np.zeros(2)}, "agent_1"),
    "a column": (lambda a: {**a, "agent_1": np.zeros((3, 1))}, "agent_1"),
    "all columns": (lambda a: {name: np.zeros((3, 1)) for name in a}, "agent_0"),
    "scalar": (lambda a: {**a, "agent_1": 0.5}, "agent_1"),
    "zero-dimensional": (lambda a: {**a, "agent_1": np.float32(0.5)}, "agent_1"),
    "None": (lambda a: {**a, "agent_1": None}, "agent_1"),
    "string": (lambda a: {**a, "agent_1": "abc"}, "agent_1"),
    "strings": (lambda a: {**a, "agent_1": ["x", "y", "z"]}, "agent_1"),
    "strings of digits": (lambda a: {**a, "agent_1": ["1", "2", "3"]}, "agent_1"),
    "objects": (lambda a: {**a, "agent_1": [None, 1.0, 2.0]}, "agent_1"),
    "complex": (lambda a: {**a, "agent_1": np.array([1j, 0, 0])}, "agent_1"),
    "dict": (lambda a: {**a, "agent_1": {0: 1.0, 1: 1.0, 2: 1.0}}, "agent_1"),
    "ragged": (lambda a: {**a, "agent_1": [[1.0], [1.0, 2.0], 3.0]}, "agent_1"),
    "list": (lambda a: list(a.values()), "dict"),
    "array": (lambda a: np.stack(list(a.values())), "dict"),
    "no actions": (lambda a: None, "dict"),
    "text": (lambda a: "agent_0", "dict"),
    "empty": (lambda a: {}, "agent_0"),
}


@pytest.mark.parametrize(("spoil", "named"), BAD_ACTIONS.values(), ids=BAD_ACTIONS)
def test_bad_actions_name_the_agent_and_change_nothing(spoil, named):
    env, untroubled = (lq_v0.parallel_env(num_agents=3, **WIDE) for _ in range(2))
    env.reset(seed=1)
    untroubled.reset(seed=1)
    for step in range(4):
        with pytest.raises(ValueError, match=rf"\b({named})\b") as caught:
            env.step(spoil(draw_actions(env, np.random.default_rng(7))))
        assert len(set(re.findall(r"agent_\d", str(caught.value)))) <= 1  # of whom it is, not of everyone
        assert play(env, 1, np.random.default_rng(step)) == play(untroubled, 1, np.random.default_rng(step))


@pytest.mark.parametrize(
    "convert",
    [list, tuple, np.float64, np.float16, lambda a: a.astype(int), lambda a: [float(v) for v in a]],
    ids=["list", "tuple", "float64", "float16", "integers", "floats"],
)
def test_any_row_of_numbers_is_an_action(convert):
    env, plain = (lq_v0.parallel_env(num_agents=3, **WIDE) for _ in range(2))
    env.reset(seed=1)
    plain.reset(seed=1)
    actions = as_dict(np.arange(9.0).reshape(3, 3))
    converted = {agent: convert(action) for agent, action in reversed(actions.items())}  # in any order, too
    np.testing.assert_equal(env.step(converted), plain.step(actions))


@pytest.mark.parametrize("wild", [10.5, 1e30, math.inf, -math.inf])
def test_actions_outside_the_box_are_clipped(wild):
    env, tame = (lq_v0.parallel_env(num_agents=3, **SHORT) for _ in range(2))
    env.reset(seed=1)
    tame.reset(seed=1)
    for _ in range(4):
        np.testing.assert_equal(
            env.step(as_dict(np.array([[wild], [1.0], [-wild]]))),
            tame.step(as_dict(np.array([[math.copysign(10, wild)], [1.0], [math.copysign(10, -wild)]]))),
        )


def test_initial_state_is_used_exactly():
    x = np.array([[0.1], [1 / 3], [-5.0]])
    for make in (lambda: lq_v0.parallel_env(num_agents=3), lambda: lq_v0.vector_env(num_envs=3)):
        env = make()
        observations, _ = env.reset(options={"initial_state": x})
        rows = np.stack(list(observations.values())) if isinstance(observations, dict) else observations
        np.testing.assert_array_equal(rows, np.column_stack([x, np.zeros(3)]).astype(np.float32))
        np.testing.assert_array_equal(env.crowd.x, x)  # not rounded to float32
        observations, _ = env.reset(options={"initial_state": x.tolist()})  # anything array-like
        np.testing.assert_array_equal(env.crowd.x, x)
        env.reset(options={"something else": 1})
        assert not np.array_equal(env.crowd.x, x)


BAD_STATES = {
    "short": (np.zeros((2, 1)), "initial_state"),
    "flat": (np.zeros(3), "initial_state"),
    "wide": (np.zeros((3, 2)), "initial_state"),
    "NaN": (np.array([[0.0], [np.nan], [0.0]]), "agent_1"),
    "infinite": (np.array([[0.0], [0.0], [np.inf]]), "agent_2"),
    "outside": (np.array([[1e6], [0.0], [0.0]]), "agent_0"),
    "text": ("abc", "initial_state"),
    "ragged": ([[0.0], [0.0, 1.0], [0.0]], "initial_state"),
}


@pytest.mark.parametrize("kind", ["parallel", "vector"])
@pytest.mark.parametrize(("state", "named"), BAD_STATES.values(), ids=BAD_STATES)
@pytest.mark.parametrize("seed", [None, 4])
def test_bad_initial_states_change_nothing(kind, state, named, seed):
    make = {"parallel": lambda: lq_v0.parallel_env(3, **SHORT), "vector": lambda: lq_v0.vector_env(3, **SHORT)}[kind]

    def go_on(env):
        """Two steps, a new episode from the stream, two steps."""
        rows = []
        for step in range(4):
            if step == 2:
                env.reset()
            a = np.full((3, 1), float(step))
            env.step(as_dict(a) if kind == "parallel" else a)
            rows.append(env.crowd.x.tolist())
        return rows

    env, untroubled = make(), make()
    env.reset(seed=1)
    untroubled.reset(seed=1)
    with pytest.raises(ValueError, match=named):
        env.reset(seed=seed, options={"initial_state": state})
    assert go_on(env) == go_on(untroubled)


def test_step_needs_reset():
    parallel, vector = lq_v0.parallel_env(num_agents=2, horizon=1), lq_v0.vector_env(num_envs=2, horizon=1)
    actions = as_dict(np.zeros((2, 1)))
    for env, a in ((parallel, actions), (vector, np.zeros((2, 1)))):
        with pytest.raises(ResetNeeded):
            env.step(a)
    with pytest.raises(ValueError, match="agent_1"):
        parallel.reset(options={"initial_state": [[0.0], [np.nan]]})
    with pytest.raises(ResetNeeded):  # a reset that failed is none
        parallel.step(actions)
    parallel.reset()
    parallel.step(actions)
    for a in (actions, {}):
        with pytest.raises(ResetNeeded):
            parallel.step(a)
    parallel.reset()
    parallel.step(actions)


def test_state_needs_reset():
    with pytest.raises(ResetNeeded):
        lq_v0.parallel_env(num_agents=2).state()


# --- the vector environment ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_vector_and_parallel_agree(in_a_frozen_crowd):
    mean_field = frozen(LinearQuadratic(**WIDE)) if in_a_frozen_crowd else None
    parallel = lq_v0.parallel_env(num_agents=4, mean_field=mean_field, **WIDE)
    vector = lq_v0.vector_env(num_envs=4, mean_field=mean_field, **WIDE)
    observations, rng = parallel.reset(seed=3)[0], np.random.default_rng(0)
    rows, info = vector.reset(seed=3)
    assert info == {}
    for t in range(5):
        np.testing.assert_array_equal(rows, np.stack(list(observations.values())))
        assert rows.dtype == np.float32
        assert vector.observation_space.contains(rows)
        if t == 4:
            break
        a = rng.uniform(-12, 12, size=(4, 3))
        observations, rewards, terminations, truncations, _ = parallel.step(as_dict(a))
        rows, reward, terminated, truncated, info = vector.step(a)
        np.testing.assert_array_equal(reward, list(rewards.values()))
        np.testing.assert_array_equal(terminated, list(terminations.values()))
        np.testing.assert_array_equal(truncated, list(truncations.values()))
        assert terminated.dtype == truncated.dtype == bool
        assert reward.shape == terminated.shape == truncated.shape == (4,)


def test_vector_spaces():
    env = lq_v0.vector_env(num_envs=4, **WIDE)
    assert isinstance(env, CrowdVectorEnv)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.num_envs == 4
    assert env.single_observation_space.shape == (3,)
    assert env.single_action_space.shape == (3,)
    assert env.observation_space.shape == env.action_space.shape == (4, 3)
    assert env.action_space.dtype == env.observation_space.dtype == np.float32


def test_next_step_autoreset():
    """After the end the next step ignores its actions, gives zero rewards and starts anew; T of them are an episode."""
    env = lq_v0.vector_env(num_envs=3, **SHORT)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    env.reset(seed=1)
    times, ends = [], []
    for step in range(1, 12):
        ended = bool(ends and ends[-1])
        actions = np.full((3, 1), np.nan if ended else 1.0)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        times.append(round(float(observations[0, -1]) * 4))
        ends.append(bool(terminated.all()))
        assert np.array_equal(rewards, np.zeros(3)) == ended
        assert not truncated.any()
        assert terminated.all() == terminated.any() == (step % 5 == 4)
    assert times == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_explicit_reset_at_the_end_is_as_good():
    """Both ways to the second episode go on with one stream of random numbers."""
    automatic, explicit = lq_v0.vector_env(num_envs=3, **SHORT), lq_v0.vector_env(num_envs=3, **SHORT)
    for env in (automatic, explicit):
        env.reset(seed=1)
        for _ in range(4):
            env.step(np.ones((3, 1)))
    np.testing.assert_array_equal(automatic.step(np.ones((3, 1)))[0], explicit.reset()[0])
    np.testing.assert_equal(automatic.step(np.ones((3, 1))), explicit.step(np.ones((3, 1))))
    explicit.reset()  # in the middle of an episode too
    assert explicit.step(np.ones((3, 1)))[0][0, -1] == np.float32(0.25)


@pytest.mark.parametrize(
    "actions", [np.zeros(3), np.zeros((3, 2)), np.zeros((2, 1)), np.array([[0.0], [np.nan], [0.0]]), "abc", None]
)
def test_bad_vector_actions_change_nothing(actions):
    env, untroubled = lq_v0.vector_env(num_envs=3, **SHORT), lq_v0.vector_env(num_envs=3, **SHORT)
    env.reset(seed=1)
    untroubled.reset(seed=1)
    with pytest.raises(ValueError, match=r"action"):
        env.step(actions)
    np.testing.assert_equal(env.step(np.ones((3, 1))), untroubled.step(np.ones((3, 1))))


def test_vector_arrays_belong_to_the_caller():
    clean, messy = (lq_v0.vector_env(num_envs=3, **SHORT) for _ in range(2))
    clean.reset(seed=1)
    messy.reset(seed=1)[0][:] = 9
    for _ in range(10):
        a = np.ones((3, 1))
        expected, returned = clean.step(np.ones((3, 1))), messy.step(a)
        np.testing.assert_equal(returned, expected)
        for array in (a, *returned[:4]):
            array[:] = 1


def test_gymnasium_wrappers():
    mean_field = solve(LinearQuadratic(horizon=5)).mean_field
    env = gymnasium.make_vec("mfg_envs/lq-v0", num_envs=6, mean_field=mean_field, horizon=5)
    assert env.unwrapped.game == LinearQuadratic(horizon=5)
    assert env.unwrapped.crowd.mean_field is mean_field
    env = NormalizeObservation(RecordEpisodeStatistics(env))
    rng, total, finished = np.random.default_rng(0), np.zeros(6), []
    env.reset(seed=1)
    for _ in range(17):  # two episodes of 5 steps and a reset, and a half
        observations, rewards, terminated, _, info = env.step(rng.uniform(-1, 1, size=(6, 1)))
        total += rewards
        assert np.all(np.isfinite(observations))
        if terminated.all():
            np.testing.assert_allclose(info["episode"]["r"], total)
            np.testing.assert_array_equal(info["episode"]["l"], 5)
            finished.append(total.copy())
            total[:] = 0
    assert len(finished) == 3
    assert np.all(finished[0] != finished[1])


# --- who meets whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_who_is_moved_by_one_agents_actions(in_a_frozen_crowd):
    """In a frozen crowd nobody but itself; in the N-player game everybody, through the mean."""
    game = LinearQuadratic(**SHORT)

    def rewards(first_action):
        env = CrowdVectorEnv(game, 5, frozen(game) if in_a_frozen_crowd else None)
        env.reset(seed=1)
        a = np.ones((5, 1))
        a[0] = first_action
        return np.stack([env.step(a)[1] for _ in range(4)])

    changed = rewards(1.0) != rewards(2.0)
    assert changed[:, 0].all()
    assert np.all(changed[1:, 1:] == (not in_a_frozen_crowd))  # the mean moves one step after the action


@pytest.mark.parametrize("game", [LinearQuadratic(**WIDE), Finale()], ids=["LQ", "Finale"])
def test_agents_are_exchangeable(game):
    """Permuting who starts where and does what permutes what they get, as the crowd is the same."""
    rng, order = np.random.default_rng(0), np.array([3, 0, 4, 1, 2])
    x, a = rng.normal(size=(5, game.dim)), rng.normal(size=(5, game.action_dim))
    rewards = []
    for rows in (np.arange(5), order):
        env = CrowdVectorEnv(game, 5)
        env.reset(seed=0, options={"initial_state": x[rows]})
        rewards.append(env.step(a[rows])[1])
    np.testing.assert_allclose(rewards[1], rewards[0][order], rtol=1e-12)


def test_one_agent_is_its_own_crowd():
    env = CrowdVectorEnv(LinearQuadratic(), 1)
    env.reset(options={"initial_state": [[3.0]]})
    assert env.step(np.zeros((1, 1)))[1].item() == pytest.approx(-0.5 * 4)  # no cost of distance to itself


def test_projected_actions_make_the_mean_action():
    """Finale: r = -a^2 + x (mean action) with actions clipped to [-1, 1], in the last step with g."""
    game, x = Finale(horizon=1), np.array([[1.0], [2.0], [3.0], [4.0]])
    env = CrowdVectorEnv(game, 4)
    env.reset(seed=0, options={"initial_state": x})
    a = np.array([[5.0], [-2.0], [1.0], [0.5]])
    rewards = env.step(a)[1]
    clipped = np.clip(a, -1, 1)[:, 0]
    final = env.crowd.x[:, 0]
    np.testing.assert_allclose(
        rewards, -(clipped**2) + x[:, 0] * clipped.mean() + 100 - (final - final.mean()) ** 2, rtol=1e-12
    )


def test_a_frozen_crowd_gives_the_reward_at_the_right_time():
    """The mean field is read at t for the reward and the step, and at T for the finale."""
    game = Finale(horizon=3)
    means = np.array([[1.0], [2.0], [4.0], [8.0]])
    crowd = Gaussian(means, np.ones((4, 1, 1)), np.array([[0.1], [0.2], [0.4]]))
    played = simulate(game, lambda t, x: 0 * x, crowd, num_agents=6, seed=0)
    expected = played.states[:-1, :, 0] * np.array([[0.1], [0.2], [0.4]])
    expected[-1] += 100 - (played.states[-1, :, 0] - 8.0) ** 2
    np.testing.assert_allclose(played.rewards, expected, rtol=1e-12)


# --- the simulator -------------------------------------------------------------------------------------------------


def affine(K, k, horizon=20):
    return AffinePolicy(np.full((horizon, 1, 1), K), np.full((horizon, 1), k))


def test_simulate_shapes_and_sums():
    game = LinearQuadratic(**WIDE)
    played = simulate(game, lambda t, x: np.full((len(x), 3), 20.0), num_agents=5, seed=0)
    assert played.states.shape == (5, 5, 2)
    assert played.actions.shape == (4, 5, 3)
    assert played.rewards.shape == (4, 5)
    assert played.states.dtype == played.actions.dtype == played.rewards.dtype == np.float64
    np.testing.assert_array_equal(played.actions, 10.0)  # as projected
    np.testing.assert_allclose(played.returns, played.rewards.sum(axis=0))
    assert simulate(game, lambda t, x: np.zeros((len(x), 3))).states.shape == (5, 1000, 2)


@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_simulate_is_what_the_environment_does(in_a_frozen_crowd):
    game = LinearQuadratic(**SHORT)
    mean_field = frozen(game) if in_a_frozen_crowd else None
    policy = affine(1.0, -0.5)
    played = simulate(game, policy, mean_field, num_agents=6, seed=5)
    env = CrowdVectorEnv(game, 6, mean_field)
    env.reset(seed=0, options={"initial_state": played.states[0]})
    noiseless = LinearQuadratic(**SHORT, sigma=0.0)
    for t in range(4):
        mu = Empirical(played.states[t]) if mean_field is None else mean_field.at(t)
        np.testing.assert_array_equal(played.actions[t], policy(t, played.states[t]))
        np.testing.assert_allclose(played.rewards[t], game.reward(t, played.states[t], played.actions[t], mu))
        still = noiseless.step(t, played.states[t], played.actions[t], mu, np.zeros((6, 1)))
        assert np.all(np.abs(played.states[t + 1] - still) < 5 * game.sigma)
        assert np.all(played.states[t + 1] != still)


def test_common_noise():
    """One seed, one noise: with two policies, x' - (A x + B a + A_bar m) is the same, also if one draws actions."""
    game = LinearQuadratic()

    class Random:
        def reset(self, n, rng):
            self.rng = rng

        def __call__(self, t, x):
            return self.rng.normal(size=x.shape)

    def noise(policy, seed):
        played = simulate(game, policy, num_agents=50, seed=seed)
        x, a = played.states, played.actions
        return np.concatenate([x[:1], x[1:] - 0.9 * x[:-1] - 0.2 * a - 0.1 * x[:-1].mean(axis=1, keepdims=True)])

    expected = noise(affine(0.0, 0.0), 1)
    for policy in (affine(1.0, 2.0), Random()):
        np.testing.assert_allclose(noise(policy, 1), expected, atol=1e-12)
    assert not np.allclose(noise(affine(0.0, 0.0), 2), expected)
    assert not np.allclose(noise(affine(0.0, 0.0), None), noise(affine(0.0, 0.0), None))
    assert expected[1:].std() == pytest.approx(0.1, rel=0.1)
    draws = [simulate(game, Random(), num_agents=5, seed=seed).actions for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    played = simulate(game, Random(), num_agents=5000, seed=1)  # what a policy draws is no noise of the agents'
    assert abs(np.corrcoef(played.actions[0, :, 0], played.states[0, :, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("in_a_frozen_crowd", [False, True])
def test_antithetic_means_are_exact_for_linear_policies(in_a_frozen_crowd):
    """m' = (A - B K) m - B k + A_bar m^crowd, with no sampling error at all."""
    game = LinearQuadratic(horizon=6)
    mean_field = frozen(game) if in_a_frozen_crowd else None
    played = simulate(game, affine(1.5, -1.0), mean_field, num_agents=8, seed=3, antithetic=True)
    m = -1.0
    for t in range(7):
        assert played.states[t].mean() == pytest.approx(m, abs=1e-13)
        m = (0.9 - 0.2 * 1.5) * m + 0.2 + 0.1 * (0.5 if in_a_frozen_crowd else m)
    assert played.states[0].std() > 0.1
    np.testing.assert_allclose(played.states[0, :4] + played.states[0, 4:], -2.0, atol=1e-13)
    plain = simulate(game, affine(1.5, -1.0), mean_field, num_agents=8, seed=3)
    assert abs(plain.states[0].mean() + 1) > 1e-3
    with pytest.raises(ValueError, match="even"):
        simulate(game, affine(1.5, -1.0), num_agents=7, antithetic=True)


def test_the_last_reward_includes_the_terminal_one():
    game = Finale()
    played = simulate(game, lambda t, x: 0.5 + 0 * x, num_agents=7, seed=0)
    final = played.states[-1, :, 0]
    flow = -0.25 + 0.5 * played.states[:-1, :, 0]
    np.testing.assert_allclose(played.rewards[:-1], flow[:-1])
    np.testing.assert_allclose(played.rewards[-1], flow[-1] + 100 - (final - final.mean()) ** 2)


def test_policies_are_reset_and_called_in_order():
    calls = []

    class Witness:
        def reset(self, n, rng):
            calls.append(("reset", n, type(rng)))

        def __call__(self, t, x):
            calls.append((t, x.shape, x.dtype))
            assert type(t) is int
            x[:] = 1e9  # the simulator hands out its states, not its hands
            return np.zeros((len(x), 1))

    played = simulate(LinearQuadratic(horizon=2), Witness(), num_agents=3, seed=0)
    assert calls == [("reset", 3, np.random.Generator), (0, (3, 1), np.float64), (1, (3, 1), np.float64)]
    assert np.abs(played.states).max() < 100


@pytest.mark.parametrize(
    "output",
    [np.zeros(6), np.zeros((6, 2)), np.zeros((5, 1)), np.zeros((1, 6)), np.full((6, 1), np.nan), None, "abc"],
    ids=["flat", "wide", "short", "turned", "NaN", "None", "text"],
)
def test_bad_policies(output):
    with pytest.raises(ValueError, match=r"action"):
        simulate(LinearQuadratic(), lambda t, x: output, num_agents=6, seed=0)


def test_a_mean_field_of_another_dimension_is_refused():
    two = frozen(LinearQuadratic(dim=2))
    with pytest.raises(ValueError, match=r"mean.field"):
        simulate(LinearQuadratic(), affine(0.0, 0.0), two, num_agents=4, seed=0)


def test_a_game_reads_only_what_it_declares():
    """A mean field that knows nothing but its mean is enough for the linear-quadratic game."""
    crowd = SimpleNamespace(horizon=4, dim=1, at=lambda t: SimpleNamespace(mean=np.zeros(1)))
    assert np.all(np.isfinite(simulate(LinearQuadratic(**SHORT), affine(1.0, 0.0), crowd, num_agents=4).returns))
