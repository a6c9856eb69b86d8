"""BeachBar, FourRooms and PriceImpact against their equations, written out by hand, and as environments."""

import dataclasses
import math
import warnings
from types import SimpleNamespace

import gymnasium
import numpy as np
import pettingzoo
import pytest
import torch

from mfg_envs import beach_bar_v0, four_rooms_v0, price_impact_v0
from mfg_envs.envs import CrowdParallelEnv, CrowdVectorEnv, simulate
from mfg_envs.equilibrium import AffinePolicy, best_response, exploitability, solve
from mfg_envs.games import GAMES, BeachBar, FourRooms, PriceImpact
from mfg_envs.mean_field import Empirical, Gaussian, MeanField
from mfg_envs.testing import Probe, bell

with warnings.catch_warnings():  # PettingZoo's own tests import its deprecated modules
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import parallel_api_test, parallel_seed_test

MODULES = {"beach_bar": beach_bar_v0, "four_rooms": four_rooms_v0, "price_impact": price_impact_v0}
all_modules = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
NOBODY = Probe()


def constant_density(p):
    """A crowd of density p everywhere."""
    return Probe(log_density=lambda x: np.full(len(x), -np.inf if p == 0 else math.log(p)))


def fold(y):
    """The line folded at -1 and 1: a triangle wave, in closed form."""
    return 2 / math.pi * math.asin(math.sin(math.pi / 2 * y))


# --- constants -------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "BeachBar": {"x_bar": 0.4, "c_x": 2.0, "c_a": 0.5, "c_m": 0.5, "eps": 1e-3, "sigma": 0.2, "dt": 0.05}
    | {"horizon": 40, "m0": -0.6, "s0": 0.1},
    "FourRooms": {
        "crowd": "entropy",
        "c_a": 0.5,
        "c_m": 1.0,
        "c_x": 4.0,
        "c_c": 1.0,
        "alpha": 1.0,
        "x_goal": (0.7, 0.7),
    }
    | {"eps": 1e-3, "sigma": 0.3, "dt": 0.05, "horizon": 40, "start": (-0.7, -0.7), "s0": 0.08}
    | {"wall": 0.05, "door": 0.25, "walls": None},
    "PriceImpact": {"gamma": 1.0, "c_a": 0.5, "c_q": 1.0, "c_g": 2.0, "sigma": 0.3, "dt": 0.05, "horizon": 20}
    | {"m0": 1.0, "s0": 0.3},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default_constants(name):
    assert GAMES[name]().constants == DEFAULTS[name]


@pytest.mark.parametrize(
    ("game", "state", "action", "reads"),
    [
        (BeachBar(), ([-1], [1]), ([-1], [1]), {"log_density"}),
        (FourRooms(), ([-1, -1], [1, 1]), ([-1, -1], [1, 1]), {"log_density"}),
        # |q| gets no further than 10 s0 + T (10 dt + 10 sigma sqrt(dt)) from m0
        (PriceImpact(sigma=0.5, dt=0.25, horizon=2), ([-12], [14]), ([-10], [10]), {"mean_action"}),
    ],
)
def test_boxes_and_declarations(game, state, action, reads):
    np.testing.assert_allclose((game.state_low, game.state_high), state, rtol=1e-12)
    np.testing.assert_array_equal((game.action_low, game.action_high), action)
    assert game.reward_reads == reads
    assert game.dynamics_reads == frozenset()


# --- the beach bar ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "constants", [{}, {"dt": 0.7, "sigma": 4.0, "x_bar": -0.2, "c_x": 3.0, "c_a": 0.1, "eps": 0.02}]
)
def test_beach_bar_by_hand(constants):
    game, rng = BeachBar(**constants), np.random.default_rng(0)
    x, a, z = rng.uniform(-1, 1, (50, 1)), rng.uniform(-2, 2, (50, 1)), rng.normal(size=(50, 1))
    for p in (0.0, 0.02, 3.0):
        moved, reward = game.step(3, x, a, NOBODY, z), game.reward(3, x, a, constant_density(p))
        for i in range(50):
            b = min(max(a[i, 0], -1), 1)
            end = fold(x[i, 0] + b * game.dt + game.sigma * math.sqrt(game.dt) * z[i, 0])
            assert moved[i, 0] == pytest.approx(end, abs=1e-12)
            costs = game.c_x * abs(x[i, 0] - game.x_bar) + game.c_a * b * b + game.c_m * math.log(p + game.eps)
            assert reward[i] == pytest.approx(-game.dt * costs, rel=1e-12)
    assert not game.terminal_reward(x, NOBODY).any()


def test_the_beach_is_the_fold_of_the_line():
    z = np.linspace(-300, 300, 20_001)[:, None]
    for game, m0, s0 in ((BeachBar(), -0.6, 0.1), (BeachBar(m0=0.3, s0=0.05), 0.3, 0.05)):
        np.testing.assert_allclose(game.initial_state(z)[:, 0], [fold(m0 + s0 * v) for v in z[:, 0]], atol=1e-12)


def test_bathers_see_the_density_where_they_are():
    game, x = BeachBar(c_x=0.0, c_a=0.0), np.array([[-0.5], [0.3]])
    mu = Probe(log_density=bell(np.array([0.3]), np.array([0.2])))
    p = np.exp(-(np.array([4.0, 0.0]) ** 2) / 2) / (0.2 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(game.reward(0, x, 0 * x, mu), -0.05 * 0.5 * np.log(p + 1e-3), rtol=1e-12)


# --- four rooms ------------------------------------------------------------------------------------------------------


def in_walls(x, wall=0.05, door=0.25):
    """Whether points (n, 2) are strictly inside the cross: written as a cross with holes, not as boxes."""
    depth, along = np.abs(x).min(axis=1), np.abs(x).max(axis=1)
    return (depth < wall) & (np.abs(along - 0.5) > door / 2)


def disc(a):
    """The nearest velocity of the unit disc, one by one."""
    return np.array([v if math.hypot(*v) <= 1 else v / math.hypot(*v) for v in a])


@pytest.mark.parametrize("p", [0.0, 0.02, 3.0])
def test_four_rooms_rewards_by_hand(p):
    rng = np.random.default_rng(0)
    x, a = rng.uniform(0.1, 0.9, (2, 40, 2)) * [[[1, -1]], [[2, -1]]]
    speed = np.linalg.norm(disc(a), axis=1)
    assert 5 < np.sum(speed < 1 - 1e-9) < 35
    games = (
        FourRooms(c_a=0.3, c_m=0.7, eps=0.01, dt=0.1),
        FourRooms(crowd="congestion", c_a=0.3, c_x=3.0, c_c=0.6, alpha=1.7, x_goal=(0.2, -0.8), dt=0.1),
    )
    entropy, congestion = (game.reward(0, x, a, constant_density(p)) for game in games)
    for i in range(40):
        by_hand = -0.1 * (0.3 * speed[i] ** 2 + 0.7 * math.log(p + 0.01))
        assert entropy[i] == pytest.approx(by_hand, rel=1e-12)
        distance = math.hypot(x[i, 0] - 0.2, x[i, 1] + 0.8)
        by_hand = -0.1 * (3.0 * distance + 0.3 * (1 + 0.6 * p) ** 1.7 * speed[i] ** 2)
        assert congestion[i] == pytest.approx(by_hand, rel=1e-12)
    for game in games:
        assert not game.terminal_reward(x, NOBODY).any()


def test_without_an_exponent_congestion_is_no_matter():
    game = FourRooms(crowd="congestion", alpha=0.0)
    x, a = np.full((3, 2), -0.5), np.full((3, 2), 0.5)
    dense, empty = (game.reward(0, x, a, constant_density(p)) for p in (1e4, 0.0))
    np.testing.assert_array_equal(dense, empty)


def test_gradients_are_finite_at_the_goal():
    x = torch.tensor([[0.7, 0.7]], dtype=torch.float64, requires_grad=True)
    game, mu = FourRooms(crowd="congestion"), Probe(log_density=bell(np.zeros(2), np.ones(2)))
    game.reward(0, x, torch.zeros_like(x), mu).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_velocities_are_projected_on_the_disc():
    a = np.random.default_rng(0).normal(0, 1.5, (200, 2))
    a[:3] = (0, 0), (1, 0), (0.6, -0.8)
    np.testing.assert_allclose(FourRooms().project_action(a), disc(a), rtol=1e-14, atol=1e-15)
    half, inf = math.sqrt(0.5), np.inf
    far = np.array([[inf, inf], [-inf, inf], [0.3, -inf], [1e200, 1e200], [3e-200, 0.0]])
    wanted = [[half, half], [-half, half], [0, -1], [half, half], [3e-200, 0.0]]
    np.testing.assert_allclose(FourRooms().project_action(far), wanted, atol=1e-15)


def test_steps_in_the_open_and_off_a_wall():
    game, still = FourRooms(sigma=0.5, dt=0.04), np.zeros((1, 2))  # sigma sqrt(dt) = 0.1
    for x, a, z, end in (
        ([0.5, 0.4], [0.5, -0.5], [1.0, -2.0], [0.62, 0.18]),  # nothing in the way
        ([-0.1, 0.1], [0.0, 0.0], [1.2, 0.5], [-0.12, 0.15]),  # the wall's face is at -0.05
        ([-0.1, 0.45], [0.0, 0.0], [2.0, 0.5], [0.1, 0.5]),  # through the door
        ([0.9, -0.95], [1.0, 0.0], [1.0, -1.5], [0.96, -0.9]),  # the corner of the square
        ([0.0, 0.4], [0.0, 0.0], [0.0, -0.5], [0.0, 0.4]),  # in the doorway, onto its jamb at 0.375
    ):
        moved = game.step(0, np.array([x]), still + a, NOBODY, still + z)
        np.testing.assert_allclose(moved, [end], atol=1e-12)


def test_the_crowd_starts_around_its_start():
    game, z = FourRooms(start=(0.5, -0.3), s0=0.03), np.random.default_rng(0).standard_normal((1000, 2))
    np.testing.assert_allclose(game.initial_state(z), np.array([0.5, -0.3]) + 0.03 * z, rtol=1e-12)
    z[:, 1] = 0
    reflected = -1 + np.abs(-0.7 + 0.2 * z[:, 0] + 1)
    near = z[:, 0] < 3  # the others meet the cross
    np.testing.assert_allclose(FourRooms(s0=0.2).initial_state(z)[near, 0], reflected[near], atol=1e-12)


@pytest.mark.parametrize(
    "constants", [{}, {"crowd": "congestion", "sigma": 2.0, "wall": 0.01, "door": 0.1, "horizon": 10}]
)
def test_ten_thousand_agents_respect_the_walls_for_a_whole_episode(constants):
    game, rng = FourRooms(**constants), np.random.default_rng(0)
    x = game.initial_state(rng.standard_normal((10_000, 2)))
    for t in range(game.horizon + 1):
        assert np.abs(x).max() <= 1
        assert not in_walls(x, game.wall, game.door).any()
        if t < game.horizon:
            x = game.step(t, x, 2 * rng.standard_normal(x.shape), NOBODY, rng.standard_normal(x.shape))
    assert all(np.any((x[:, 0] * i > 0) & (x[:, 1] * j > 0)) for i in (-1, 1) for j in (-1, 1))


def test_closed_rooms_keep_their_crowd():
    game, rng = FourRooms(door=0.0, sigma=1.0, horizon=10), np.random.default_rng(0)
    x = game.initial_state(rng.standard_normal((1000, 2)))
    for t in range(game.horizon):
        x = game.step(t, x, rng.standard_normal(x.shape), NOBODY, rng.standard_normal(x.shape))
    assert np.all((x >= -1) & (x <= -0.05))


def test_diffusion_knows_neither_of_the_two_rooms_beside_the_start():
    """The mirror of the noise in the diagonal is the mirror of the path; and the two rooms fill alike."""
    game, rng, n = FourRooms(), np.random.default_rng(0), 50_000
    z = rng.standard_normal((game.horizon + 1, n, 2))
    x = game.initial_state(z[0])
    mirrored = game.initial_state(z[0, :100, ::-1])
    for t in range(game.horizon):
        x = game.step(t, x, np.zeros_like(x), NOBODY, z[t + 1])
        mirrored = game.step(t, mirrored, np.zeros((100, 2)), NOBODY, z[t + 1, :100, ::-1])
    np.testing.assert_allclose(mirrored[:, ::-1], x[:100], atol=1e-9)
    right, up = x.T > 0
    start, beside, other, far = (np.sum(mask) for mask in (~right & ~up, right & ~up, ~right & up, right & up))
    assert beside + other > 100
    assert abs(beside - other) < 4 * math.sqrt(beside + other)
    assert far < min(beside, other) < start


def test_own_walls():
    lists = [[[-0.2, -1], [0.2, 0.5]], [[0.5, 0.0], [0.7, 2.0]]]
    games = [FourRooms(walls=lists), FourRooms(walls=np.array(lists)), FourRooms(walls=tuple(lists))]
    assert games[0].walls == (((-0.2, -1.0), (0.2, 0.5)), ((0.5, 0.0), (0.7, 2.0)))
    assert len(set(games)) == 1
    assert games[0] != FourRooms()
    still, wide = np.zeros((1, 2)), FourRooms(walls=lists, sigma=1.0, dt=1.0)
    start = np.array([[-0.4, 0.0]])
    moved = wide.step(0, start, still, NOBODY, np.array([[0.3, 0.0]]))  # 0.2 to the wall at -0.2, and 0.1 back
    np.testing.assert_allclose(moved, [[-0.3, 0.0]], atol=1e-12)
    moved = FourRooms(sigma=1.0, dt=1.0, walls=[]).step(0, start, still, NOBODY, np.array([[0.8, 0.0]]))
    np.testing.assert_allclose(moved, [[0.4, 0.0]], atol=1e-12)


# --- bad constants ---------------------------------------------------------------------------------------------------

NOT_A_NUMBER = ("x", None, math.nan, math.inf, [1.0, 2.0])
BAD = [
    *((BeachBar, {name: value}, name) for name in ("x_bar", "m0") for value in (*NOT_A_NUMBER, 1.01, -2)),
    *(
        (BeachBar, {name: value}, name)
        for name in ("c_x", "c_a", "c_m", "sigma", "s0")
        for value in (*NOT_A_NUMBER, -0.1)
    ),
    *((BeachBar, {name: value}, name) for name in ("eps", "dt") for value in (*NOT_A_NUMBER, 0, -0.1)),
    *((FourRooms, {"crowd": value}, "crowd must be one of .*entropy.*congestion") for value in ("panic", "", None, [])),
    *(
        (FourRooms, {name: value}, name)
        for name in ("c_a", "c_m", "c_x", "c_c", "alpha", "sigma", "s0", "door")
        for value in (*NOT_A_NUMBER, -0.1)
    ),
    *((FourRooms, {name: value}, name) for name in ("eps", "dt", "wall") for value in (*NOT_A_NUMBER, 0, -0.1)),
    *(
        (FourRooms, {name: value}, name)
        for name in ("start", "x_goal")
        for value in (0.5, (0.5,), (0.1, math.nan), "ab")
    ),
    (FourRooms, {"start": (0.0, 0.0)}, r"start \(0\.0, 0\.0\) is covered by walls"),
    (FourRooms, {"start": (-0.3, 1.2)}, r"start \(-0\.3, 1\.2\) is .* outside the square"),
    (FourRooms, {"walls": [((-0.8, -0.8), (-0.6, -0.6))]}, "start .* is covered by walls"),
    (FourRooms, {"walls": [((0.2, 0.0), (0.1, 1.0))]}, r"walls\[0\] must be a lower corner and an upper corner"),
    (FourRooms, {"walls": [((0.1, 0.0), (0.2, 1.0)), ((0, 0, 0), (1, 1, 1))]}, r"walls\[1\] must be"),
    (FourRooms, {"walls": 0.05}, "walls must be pairs"),
    (FourRooms, {"door": 0.91}, "door must be"),  # of 1 - 2 * 0.05
    (FourRooms, {"wall": 0.4}, "door must be"),
    *((PriceImpact, {name: value}, name) for name in ("gamma", "m0") for value in NOT_A_NUMBER),
    *((PriceImpact, {name: value}, name) for name in ("c_q", "c_g", "sigma", "s0") for value in (*NOT_A_NUMBER, -0.1)),
    *((PriceImpact, {name: value}, name) for name in ("c_a", "dt") for value in (*NOT_A_NUMBER, 0, -0.1)),
    *(
        (game, {"horizon": value}, "horizon must be an integer of at least 1")
        for game in (BeachBar, FourRooms, PriceImpact)
        for value in (0, -1, 2.0, True, "3", None)
    ),
]


@pytest.mark.parametrize(("game", "constants", "message"), BAD, ids=str)
def test_bad_constants_are_named(game, constants, message):
    with pytest.raises(ValueError, match=message):
        game(**constants)


@pytest.mark.parametrize("game", [BeachBar(), FourRooms(), PriceImpact()], ids=lambda game: type(game).__name__)
def test_numbers_of_any_kind_are_stored_plainly(game):
    numbers = {name: value for name, value in game.constants.items() if type(value) is float}
    fancy = dataclasses.replace(game, **{name: np.float64(value) for name, value in numbers.items()})
    fancy = dataclasses.replace(fancy, horizon=np.int32(game.horizon))
    assert fancy == game
    assert hash(fancy) == hash(game)
    assert all(type(value) is type(game.constants[name]) for name, value in fancy.constants.items())


# --- price impact ----------------------------------------------------------------------------------------------------


def test_price_impact_by_hand():
    game = PriceImpact(gamma=-1.5, c_a=0.4, c_q=0.7, c_g=1.1, sigma=0.6, dt=0.25, m0=2.0, s0=0.5)
    rng = np.random.default_rng(0)
    q, a, z = rng.normal(0, 2, (30, 1)), rng.uniform(-20, 20, (30, 1)), rng.normal(size=(30, 1))
    mu = Probe(mean_action=np.array([-0.8]))
    moved, reward, terminal = game.step(0, q, a, mu, z), game.reward(0, q, a, mu), game.terminal_reward(q, mu)
    for i in range(30):
        b = min(max(a[i, 0], -10), 10)
        assert moved[i, 0] == pytest.approx(q[i, 0] + 0.25 * b + 0.6 * 0.5 * z[i, 0], rel=1e-12)
        by_hand = 0.25 * (-1.5 * -0.8 * q[i, 0] - 0.4 * b**2 - 0.7 * q[i, 0] ** 2)
        assert reward[i] == pytest.approx(by_hand, rel=1e-12)
        assert terminal[i] == pytest.approx(-1.1 * q[i, 0] ** 2, rel=1e-12)
    np.testing.assert_allclose(game.initial_state(z), 2.0 + 0.5 * z, rtol=1e-14)


def test_price_impact_equilibrium_is_the_reference():
    found = solve(PriceImpact())
    actions = [found.mean_field.at(t).mean_action.item() for t in (0, 5, 10, 19)]
    np.testing.assert_allclose(actions, [-1.93324506, -1.19619845, -0.7494424, -0.34873219], atol=1e-6)
    assert found.value == pytest.approx(-1.4922051550641424, abs=1e-6)
    assert found.policy.K[0].item() == pytest.approx(1.4464539240454468, abs=1e-6)
    assert found.policy.k[0].item() == pytest.approx(0.4867911334781168, abs=1e-6)
    assert not found.value_is_upper_bound
    assert abs(found.exploitability) < 1e-12


def test_price_impact_value_is_what_is_earned():
    game = PriceImpact()
    found = solve(game)
    played = simulate(game, found.policy, num_agents=20_000, seed=0, antithetic=True)
    pairs = played.returns.reshape(2, -1).mean(axis=0)
    assert abs(pairs.mean() - found.value) < 4 * pairs.std() / math.sqrt(len(pairs))


def test_doing_nothing_on_the_market():
    """What it earns by hand: E q_t^2 = m0^2 + s0^2 + t sigma^2 dt. What it could earn: the reference."""
    nothing = AffinePolicy(np.zeros((20, 1, 1)), np.zeros((20, 1)))
    square = [1.0 + 0.09 + t * 0.0045 for t in range(21)]
    by_hand = -0.05 * sum(square[:20]) - 2 * square[20]
    result = exploitability(PriceImpact(), nothing, num_agents=10_000)
    assert result.value == pytest.approx(2.553590089700866, rel=0.01)
    assert result.policy_return == pytest.approx(by_hand, rel=0.01)


HARD = PriceImpact(gamma=4.0, c_g=0.0, c_q=0.1, c_a=0.1, horizon=40)


def respond(game, b):
    """Mean actions of the best response to a crowd of mean actions b (T,): scalar Riccati, and the mean forwards."""
    P, p, gains = game.c_g, 0.0, []
    for t in reversed(range(game.horizon)):
        K, k = (v / (game.c_a + game.dt * P) for v in (P, p))
        P, p = game.dt * game.c_q + P * (1 - game.dt * K), p * (1 - game.dt * K) - game.dt * game.gamma * b[t] / 2
        gains.insert(0, (K, k))
    m, answer = game.m0, []
    for K, k in gains:
        answer.append(-(K * m + k))
        m += game.dt * answer[-1]
    return np.array(answer)


@pytest.mark.parametrize("game", [PriceImpact(), HARD], ids=["default", "hard"])
def test_the_equilibrium_answers_itself(game):
    found = solve(game)
    b = np.array([found.mean_field.at(t).mean_action.item() for t in range(game.horizon)])
    np.testing.assert_allclose(respond(game, b), b, rtol=1e-8, atol=1e-12)
    again = best_response(game, found.mean_field)
    np.testing.assert_allclose(again.policy.k, found.policy.k, rtol=1e-8, atol=1e-10)
    assert again.value == pytest.approx(found.value, rel=1e-8)
    m = [found.mean_field.at(t).mean.item() for t in range(game.horizon + 1)]
    np.testing.assert_allclose(np.diff(m), game.dt * b, rtol=1e-8, atol=1e-12)


def test_where_fixed_point_iterations_diverge():
    """The equilibrium is solved. However damped, iterations leave it: an eigenvalue has a real part above 1."""
    found = solve(HARD)
    b = np.array([found.mean_field.at(t).mean_action.item() for t in range(40)])
    for damping in (1.0, 0.5, 0.1):
        guess = b + 1e-6
        for _ in range(200):
            guess = (1 - damping) * guess + damping * respond(HARD, guess)
            if np.abs(guess - b).max() > 1:
                break
        else:
            pytest.fail(f"with damping {damping} the iteration stays")
    linear = np.stack([respond(HARD, row) - respond(HARD, np.zeros(40)) for row in np.eye(40)], axis=1)
    assert np.linalg.eigvals(linear).real.max() > 1.1
    assert found.value_is_upper_bound  # and the action box binds


# --- environments ----------------------------------------------------------------------------------------------------


@all_modules
def test_pettingzoo(module, capsys):
    def make():
        return module.parallel_env(num_agents=5, horizon=4)

    parallel_api_test(make(), num_cycles=20)
    parallel_seed_test(make)


@pytest.mark.parametrize("name", MODULES)
def test_registered(name):
    env = pettingzoo.make("parallel", f"mfg_envs/{name}-v0", num_agents=3, horizon=2)
    assert env.unwrapped.game == type(env.unwrapped.game)(horizon=2)
    assert env.metadata["name"] == f"{name}_v0"
    aec = pettingzoo.make("aec", f"mfg_envs/{name}-v0", num_agents=3)
    assert aec.possible_agents == ["agent_0", "agent_1", "agent_2"]
    envs = gymnasium.make_vec(f"mfg_envs/{name}-v0", num_envs=4, sigma=0.1)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (4, env.unwrapped.game.dim + 1)
    assert envs.unwrapped.game.sigma == 0.1
    envs.close()


@all_modules
def test_nan_actions_name_the_agent_and_change_nothing(module):
    env, twin = (module.parallel_env(num_agents=3, horizon=3) for _ in range(2))
    for e in (env, twin):
        e.reset(seed=1)
    k = env.game.action_dim
    good = {agent: np.full(k, 0.1) for agent in env.agents}
    with pytest.raises(ValueError, match="agent_1 is NaN"):
        env.step({**good, "agent_1": np.full(k, np.nan)})
    np.testing.assert_array_equal(env.state(), twin.state())
    assert env.step(good)[1] == twin.step(good)[1]


@pytest.mark.parametrize(
    ("module", "good", "bad"),
    [
        (four_rooms_v0, (0.5, 0.5), (0.0, 0.2)),  # inside the cross
        (four_rooms_v0, (0.0, 0.5), (0.5, 1.1)),  # a door; outside
        (beach_bar_v0, (1.0,), (1.0001,)),
        (beach_bar_v0, (0.2,), (np.nan,)),
        (price_impact_v0, (5.0,), (1e6,)),
    ],
)
def test_impossible_starts_name_the_agent_and_change_nothing(module, good, bad):
    env = module.parallel_env(num_agents=3)
    env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample() * 0 for agent in env.agents})
    before = env.state()
    with pytest.raises(ValueError, match="initial_state of agent_1 is not in the state space"):
        env.reset(options={"initial_state": [good, bad, good]})
    np.testing.assert_array_equal(env.state(), before)
    assert env.crowd.t == 1
    env.reset(options={"initial_state": [good, good, good]})
    np.testing.assert_array_equal(env.state(), np.array([good] * 3, dtype=np.float32))


# --- each other's crowd ----------------------------------------------------------------------------------------------


def play(game, x, a, mean_field=None):
    """Rewards (N,) and next states (N, d) of one step from x (N, d), noise from a fixed seed."""
    env = CrowdParallelEnv(game, len(x), mean_field)
    env.reset(seed=0, options={"initial_state": x})
    rewards = env.step({f"agent_{i}": row for i, row in enumerate(a)})[1]
    return np.array(list(rewards.values())), env.crowd.x


def entropy_reward(game, a, p):
    return -game.dt * (game.c_a * np.sum(np.square(a), axis=1) + game.c_m * np.log(p + game.eps))


def test_nobody_is_in_their_own_way():
    """Alone, or in closed rooms with one agent each, everybody has density 0; in one room, that of the others."""
    a = np.array([[0.3, 0.1], [0.0, -0.2]])
    closed, opened = FourRooms(door=0.0), FourRooms()
    alone, _ = play(opened, np.array([[-0.5, 0.3]]), a[:1])
    np.testing.assert_allclose(alone, entropy_reward(opened, a[:1], 0.0), rtol=1e-12)
    apart, _ = play(closed, np.array([[-0.5, 0.3], [0.5, 0.3]]), a)
    np.testing.assert_allclose(apart, entropy_reward(closed, a, 0.0), rtol=1e-9)
    x = np.random.default_rng(0).uniform(0.1, 0.9, (30, 2))
    rewards, _ = play(opened, x, 0 * x)
    others = Empirical(x, floor=opened.floor).leave_one_out()
    np.testing.assert_allclose(rewards, entropy_reward(opened, 0 * x, np.exp(others.log_density(x))), rtol=1e-12)
    everyone = Empirical(x, floor=opened.floor)
    assert np.all(rewards > entropy_reward(opened, 0 * x, np.exp(everyone.log_density(x))))


@pytest.mark.parametrize(
    "game",
    [FourRooms(), FourRooms(crowd="congestion"), BeachBar(), PriceImpact()],
    ids=["entropy", "congestion", "beach", "market"],
)
def test_permuting_agents_permutes_rewards(game):
    rng = np.random.default_rng(0)
    x, a = game.initial_state(rng.normal(size=(25, game.dim))), rng.normal(size=(25, game.action_dim))
    order = rng.permutation(25)
    rewards, _ = play(game, x, a)
    assert len(set(rewards)) == 25
    np.testing.assert_allclose(play(game, x[order], a[order])[0], rewards[order], rtol=1e-9)


class Standing(MeanField):
    """A crowd in the plane, of one density at all times: no matter how it is made, an environment takes it."""

    dim = 2

    def __init__(self, horizon, log_density):
        self.horizon, self.mu = horizon, SimpleNamespace(log_density=log_density)

    def at(self, t):
        return self.mu


BESIDE = bell(np.array([-0.5, -0.3]), np.array([0.4, 0.4]))
FROZEN = {
    "beach": (BeachBar(), Gaussian(np.full((41, 1), 0.2), np.full((41, 1, 1), 0.09))),
    "rooms": (FourRooms(), Standing(40, BESIDE)),
    "congested rooms": (FourRooms(crowd="congestion"), Standing(40, BESIDE)),
    "market": (PriceImpact(), Gaussian(np.zeros((21, 1)), np.ones((21, 1, 1)), np.full((20, 1), -0.7))),
}


@pytest.mark.parametrize(("game", "mean_field"), FROZEN.values(), ids=FROZEN)
def test_in_a_frozen_crowd_agents_are_on_their_own(game, mean_field):
    rng = np.random.default_rng(0)
    x, a = game.initial_state(rng.normal(size=(10, game.dim))), rng.normal(size=(10, game.action_dim))
    rewards, moved = play(game, x, a, mean_field)
    np.testing.assert_allclose(rewards, game.reward(0, x, a, mean_field.at(0)), rtol=1e-12)
    x[0], a[0] = game.initial_state(rng.normal(size=(1, game.dim)))[0], -a[0]
    others = play(game, x, a, mean_field)
    np.testing.assert_array_equal(others[0][1:], rewards[1:])
    np.testing.assert_array_equal(others[1][1:], moved[1:])
    assert others[0][0] != rewards[0]
    company = play(game, x, a)[0], play(game, x[::-1], a[::-1])[0]
    assert not np.allclose(company[0][1:], rewards[1:])  # in company it is another game


def test_the_markets_mean_action_is_that_of_this_steps_projected_actions():
    game, q = PriceImpact(gamma=2.0), np.array([[1.0], [-2.0], [0.5]])
    a = np.array([[-30.0], [4.0], [np.inf]])
    admissible = np.array([-10.0, 4.0, 10.0])
    by_hand = 0.05 * (2.0 * admissible.mean() * q[:, 0] - 0.5 * admissible**2 - q[:, 0] ** 2)
    np.testing.assert_allclose(play(game, q, a)[0], by_hand, rtol=1e-12)


def test_the_day_ends_with_the_terminal_cost():
    game, q, a = PriceImpact(horizon=1), np.array([[1.0], [-2.0]]), np.array([[1.0], [2.0]])
    rewards, after = play(game, q, a)
    by_hand = 0.05 * (1.5 * q - 0.5 * a**2 - q**2) - 2 * after**2
    np.testing.assert_allclose(rewards, by_hand[:, 0], rtol=1e-12)


def test_a_bandwidth_given_is_the_one_that_rewards_use():
    a = dict.fromkeys((f"agent_{i}" for i in range(40)), np.zeros(1, dtype=np.float32))
    rewards = {}
    for bandwidth in (None, 0.05, 0.4):
        env = beach_bar_v0.parallel_env(num_agents=40, bandwidth=bandwidth)
        env.reset(seed=0)
        rewards[bandwidth] = np.array(list(env.step(a)[1].values()))
    assert rewards[0.4].mean() > rewards[0.05].mean()  # a wider kernel sees a thinner crowd
    assert not np.array_equal(rewards[None], rewards[0.05])
    vector = CrowdVectorEnv(BeachBar(), 40, bandwidth=0.4)
    vector.reset(seed=0)
    np.testing.assert_allclose(vector.step(np.zeros((40, 1)))[1], rewards[0.4])
