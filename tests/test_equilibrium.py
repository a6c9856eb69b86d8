"""The exact oracle of the linear-quadratic game, against moments and linear systems written out here."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kstest

from mfg_envs.envs import simulate
from mfg_envs.equilibrium import AffinePolicy, best_response, exploitability, solve
from mfg_envs.games import Game, LinearQuadratic
from mfg_envs.mean_field import Empirical, Flow, Gaussian
from mfg_envs.policies import AveragePolicy

CASES = {
    "default": LinearQuadratic(),
    "two": LinearQuadratic(dim=2, A=1.0, A_bar=0.0, B=0.3, c_x=0.25, c_a=0.25, c_m=0.5, horizon=30),
    "runaway crowd": LinearQuadratic(A_bar=1.5),
    "repelled": LinearQuadratic(A=-0.9, A_bar=-0.4, m0=2.0, c_m=2.0),
    "one step": LinearQuadratic(horizon=1),
    "two steps": LinearQuadratic(horizon=2),
    "wide": LinearQuadratic(
        dim=2,
        A=((0.9, -0.4), (0.3, 0.7)),
        B=((0.2, 0.1, -0.3), (0.0, -0.5, 0.2)),
        A_bar=((0.1, -0.2), (0.05, 0.3)),
        x_target=(1.0, -0.5),
        m0=(-1.0, 0.3),
        horizon=8,
    ),
    "tall": LinearQuadratic(
        dim=3,
        A=((0.8, 0.1, 0.0), (-0.2, 0.9, 0.1), (0.0, 0.3, 0.7)),
        B=((0.4,), (0.0,), (0.2,)),
        A_bar=((0.1, 0.0, 0.0), (0.0, -0.1, 0.05), (0.0, 0.0, 0.1)),
        x_target=(1.0, 0.0, -1.0),
        horizon=10,
    ),
    "certain": LinearQuadratic(sigma=0.0, s0=0.0),
    "powerless": LinearQuadratic(B=0.0),
    "carefree": LinearQuadratic(c_x=0.0, c_m=0.0),
    "alone": LinearQuadratic(A_bar=0.0, c_m=0.0),
}
all_cases = pytest.mark.parametrize("game", CASES.values(), ids=CASES)
some_cases = pytest.mark.parametrize("game", [CASES[name] for name in ("default", "wide", "tall")])


# --- the mathematics, written again --------------------------------------------------------------------------------


def matrices(game):
    """A, B, A_bar as matrices, the target and m0 as vectors."""
    eye = np.eye(game.dim)
    A, B, A_bar = (M if (M := np.asarray(v)).ndim == 2 else M * eye for v in (game.A, game.B, game.A_bar))
    return A, B, A_bar, game.x_target * np.ones(game.dim), game.m0 * np.ones(game.dim)


def moments(game, policy, crowd=None, action_std=0.0):
    """Means (T+1, d), covariances and the return of a = -(K x + k) + noise among means (T+1, d), its own if None.

    E r = -c_x (|mu - x*|^2 + tr S) - c_a (|K mu + k|^2 + tr K S K' + k s^2) - c_m (|mu - m|^2 + tr S).
    """
    A, B, A_bar, target, mean = matrices(game)
    S, total, means, covariances = game.s0**2 * np.eye(game.dim), 0.0, [], []
    for t in range(game.horizon + 1):
        means.append(mean)
        covariances.append(S)
        if t == game.horizon:
            break
        m, K, k = (mean if crowd is None else crowd[t]), policy.K[t], policy.k[t]
        a = -(K @ mean + k)
        of_action = a @ a + np.trace(K @ S @ K.T) + len(k) * action_std**2
        total -= game.c_x * (np.sum((mean - target) ** 2) + np.trace(S)) + game.c_a * of_action
        total -= game.c_m * (np.sum((mean - m) ** 2) + np.trace(S))
        closed = A - B @ K
        mean = A @ mean + B @ a + A_bar @ m
        S = closed @ S @ closed.T + action_std**2 * B @ B.T + game.sigma**2 * np.eye(game.dim)
    return np.array(means), np.array(covariances), total


def boundary_matrix(game):
    """I + X F' and its right side, for the equilibrium means m_0, ..., m_T, without any Riccati equation.

    In equilibrium c_a b_t = -B' l_{t+1} with l_t = c_x sum_{u=t}^{T-1} (A')^{u-t} (m_u - x*): to the mean agent, whose
    distance to the mean is nought, c_m costs nothing. With G = A + A_bar, m_t = G^t m_0 + sum_{s<t} G^{t-1-s} B b_s.
    """
    A, B, A_bar, target, m0 = matrices(game)
    T, d, G, power = game.horizon, game.dim, A + A_bar, np.linalg.matrix_power
    control, adjoint = np.zeros((2, T + 1, d, T + 1, d))  # b_{s-1} -> m_t, m_u -> l_t
    for t in range(T + 1):
        for s in range(1, t + 1):
            control[t, :, s, :] = -power(G, t - s) @ B @ B.T / game.c_a
        for u in range(max(t, 1), T):
            adjoint[t, :, u, :] = game.c_x * power(A, u - t).T
    n = (T + 1) * d
    control, adjoint = control.reshape(n, n), adjoint.reshape(n, n)
    free = np.concatenate([power(G, t) @ m0 for t in range(T + 1)])
    return np.eye(n) - control @ adjoint, free - control @ adjoint @ np.tile(target, T + 1)


def gap(game, policy, action_std=0.0):
    """Exploitability of an affine policy with action noise: the exact return of its best response, less its own."""
    crowd, _, own = moments(game, policy, action_std=action_std)
    best = best_response(game, frozen(crowd)).policy
    return moments(game, best, crowd)[2] - own


def frozen(means):
    """A crowd with these means; the game looks at nothing else of it."""
    steps, d = means.shape
    return Gaussian(means, np.tile(np.eye(d), (steps, 1, 1)))


def affine(game, rng, scale=0.2):
    size = (game.horizon, game.action_dim)
    return AffinePolicy(scale * rng.normal(size=(*size, game.dim)), scale * rng.normal(size=size))


def shifted(policy, by, eps=1.0):
    return AffinePolicy(policy.K + eps * by.K, policy.k + eps * by.k)


class Noisy:
    """An affine policy with normal noise of its own."""

    def __init__(self, policy, std):
        self.policy, self.std = policy, std

    def reset(self, n, rng):
        self.rng = rng

    def __call__(self, t, x):
        a = self.policy(t, x)
        return a + self.std * self.rng.normal(size=a.shape)


class Camps:
    """Half of the agents, chosen at random for the episode, play policy + delta, the others policy - delta."""

    def __init__(self, policy, delta):
        self.policy, self.delta = policy, delta

    def reset(self, n, rng):
        self.side = rng.permutation(np.repeat([-1.0, 1.0], n // 2))[:, None]

    def __call__(self, t, x):
        return self.policy(t, x) + self.side * self.delta


def nothing(t, x):
    return np.zeros((len(x), 1))


# --- equilibria ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "means"),
    [
        ("default", -6.109641940308837, {1: -0.33333336, 5: 0.73662516, 10: 0.96531239, 20: 0.99864672}),
        ("two", -9.120055991254514, {1: -0.48328757, 5: 0.55124743, 10: 0.89930978, 30: 0.99940069}),
    ],
)
def test_reference_values(name, value, means):
    equilibrium = solve(CASES[name])
    assert equilibrium.value == pytest.approx(value, abs=1e-9)
    for t, mean in means.items():
        np.testing.assert_allclose(equilibrium.mean_field.at(t).mean, mean, atol=1e-8)


def test_reference_gains():
    policy = solve(CASES["default"]).policy
    assert policy.K[0].item() == pytest.approx(1.9228461924874358, abs=1e-9)
    assert policy.k[0].item() == pytest.approx(-1.4104870034069303, abs=1e-9)
    assert policy(0, np.array([[0.5]])).item() == pytest.approx(-1.9228461924874358 * 0.5 + 1.4104870034069303)


@pytest.mark.parametrize(("name", "expected"), [("default", 18.042031789551764), ("two", 27.537265024189345)])
def test_reference_exploitability_of_doing_nothing(name, expected):
    game = CASES[name]
    found = exploitability(game, lambda t, x: np.zeros_like(x))
    assert found.value == pytest.approx(expected, rel=0.01)
    zero = AffinePolicy(np.zeros((game.horizon, game.dim, game.dim)), np.zeros((game.horizon, game.dim)))
    assert gap(game, zero) == pytest.approx(expected, abs=1e-6)


@all_cases
def test_means_solve_the_first_order_conditions(game):
    matrix, right = boundary_matrix(game)
    means = np.linalg.solve(matrix, right).reshape(game.horizon + 1, game.dim)
    np.testing.assert_allclose(solve(game).mean_field.means, means, rtol=1e-7, atol=1e-9)


@all_cases
def test_an_equilibrium_reproduces_itself(game):
    """Its crowd is that of its policy; its policy is the best response to its crowd; its value is the return."""
    found = solve(game)
    means, covariances, value = moments(game, found.policy)
    np.testing.assert_allclose(found.mean_field.means, means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.mean_field.covariances, covariances, rtol=1e-9, atol=1e-12)
    assert found.value == pytest.approx(value, rel=1e-8, abs=1e-9)
    better = best_response(game, found.mean_field)
    np.testing.assert_allclose(better.policy.K, found.policy.K, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(better.policy.k, found.policy.k, rtol=1e-7, atol=1e-8)
    assert 0 <= found.exploitability < 1e-12 * max(1.0, abs(value))
    assert gap(game, found.policy) == pytest.approx(0, abs=1e-10 * max(1.0, abs(value)))
    for t in range(game.horizon):
        a = found.policy(t, means[t][None])[0]
        np.testing.assert_allclose(found.mean_field.at(t).mean_action, a, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a, 0, atol=1e-12)  # what the last action moves is not rewarded


def test_an_equilibrium_knows_its_game():
    assert solve(CASES["wide"]).game == CASES["wide"]


@pytest.mark.parametrize("damping", [1.0, 0.5, 0.1])
def test_solve_where_fixed_point_iterations_diverge(damping):
    """m <- (1 - w) m + w (means of the best response's own crowd), begun a hair from the equilibrium."""
    game = CASES["runaway crowd"]
    m = start = solve(game).mean_field.means
    np.testing.assert_allclose(moments(game, best_response(game, frozen(m)).policy)[0], m, atol=1e-8)
    played = simulate(game, solve(game).policy, num_agents=10, seed=0, antithetic=True)
    np.testing.assert_allclose(played.states.mean(axis=1), m, atol=1e-8)
    m = m + 1e-3 * (np.arange(len(m)) > 0)[:, None]
    for _ in range(15):
        m = (1 - damping) * m + damping * moments(game, best_response(game, frozen(m)).policy)[0]
    assert np.abs(m - start).max() > 1.0


def test_one_step_and_two_by_hand():
    """T = 1: what one does moves nothing that is rewarded. T = 2: c_a b + B c_x (m_1 - x*) = 0, b the mean action."""
    one = solve(CASES["one step"])
    np.testing.assert_array_equal(one.policy(0, np.ones((3, 1))), 0)
    assert one.value == pytest.approx(-0.5 * (4 + 0.09) - 0.5 * 0.09)
    game = CASES["two steps"]
    two, pull = solve(game), 0.2**2 * 0.5 / 0.1
    m1 = (1.0 * game.m0 + pull * game.x_target) / (1 + pull)
    assert two.mean_field.at(1).mean.item() == pytest.approx(m1, abs=1e-12)
    assert two.policy.K[0].item() == pytest.approx(0.2 * 1.0 * 0.9 / (0.1 + 0.2**2 * 1.0), abs=1e-12)
    np.testing.assert_array_equal(two.policy(1, np.ones((3, 1))), 0)


@pytest.mark.parametrize(("A", "pull"), [(2.0, 1.0), (0.9, 0.2), (-1.3, 0.5)])
@pytest.mark.parametrize("c_m", [0.0, 0.5])
def test_no_unique_equilibrium(A, pull, c_m):
    """T = 3, w = B^2 c_x / c_a, g = A + A_bar: the system of m_1 and m_2 has determinant (1 + w)^2 + w g A."""
    singular = -((1 + pull) ** 2) / (pull * A) - A
    game = LinearQuadratic(A=A, A_bar=singular, B=np.sqrt(pull * 0.1 / 0.5), c_m=c_m, horizon=3)
    assert abs(np.linalg.det(boundary_matrix(game)[0])) < 1e-12
    with pytest.raises(ValueError, match="no unique equilibrium"):
        solve(game)
    near = dataclasses.replace(game, A_bar=singular + 1e-2)
    means = np.linalg.solve(*boundary_matrix(near))
    np.testing.assert_allclose(solve(near).mean_field.means[:, 0], means, rtol=1e-8)


@pytest.mark.parametrize(
    "constants", [{"A": 1e200}, {"A": 10.0, "B": 0.0, "horizon": 400}, {"c_x": 1e308, "c_m": 1e308}]
)
def test_overflow_is_no_equilibrium(constants):
    with pytest.raises(ValueError, match="no unique equilibrium"):
        solve(LinearQuadratic(**constants))


# --- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [2.0, -7.5])
def test_translation(by):
    """With A = 1 and A_bar = 0, shifting m0 and x_target shifts the crowd and changes neither return nor gains."""
    game = LinearQuadratic(A=1.0, A_bar=0.0)
    moved = dataclasses.replace(game, m0=game.m0 + by, x_target=game.x_target + by)
    here, there = solve(game), solve(moved)
    np.testing.assert_allclose(there.mean_field.means, here.mean_field.means + by, atol=1e-10)
    np.testing.assert_allclose(there.policy.K, here.policy.K, atol=1e-12)
    assert there.value == pytest.approx(here.value, abs=1e-10)


@pytest.mark.parametrize("by", [1e-9, 1e-3, 7.0, 1e9])
def test_scaling_of_costs(by):
    """In other units of reward, the same policy, and returns and exploitability in those units."""
    game = CASES["default"]
    scaled = dataclasses.replace(game, c_x=by * game.c_x, c_a=by * game.c_a, c_m=by * game.c_m)
    one, other = solve(game), solve(scaled)
    np.testing.assert_allclose(other.policy.K, one.policy.K, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other.mean_field.means, one.mean_field.means, rtol=1e-9)
    assert other.value == pytest.approx(by * one.value, rel=1e-9)
    gains = [exploitability(g, nothing, num_agents=100).value for g in (game, scaled)]
    assert gains[1] == pytest.approx(by * gains[0], rel=1e-9)


@pytest.mark.parametrize("by", [1e-5, 0.1, 1e5])
def test_scaling_of_space(by):
    """In other units of length, x scaled and actions not, the same return and a scaled crowd."""
    game = CASES["default"]
    scaled = dataclasses.replace(
        game,
        **{name: by * getattr(game, name) for name in ("B", "sigma", "s0", "m0", "x_target")},
        **{name: getattr(game, name) / by**2 for name in ("c_x", "c_m")},
    )
    one, other = solve(game), solve(scaled)
    np.testing.assert_allclose(other.mean_field.means, by * one.mean_field.means, rtol=1e-9)
    assert other.value == pytest.approx(one.value, rel=1e-9)


def test_rotation():
    """In rotated coordinates the game is the same: A -> U A U', B -> U B, A_bar -> U A_bar U', targets -> U."""
    game = CASES["tall"]
    A, B, A_bar, target, m0 = matrices(game)
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = dataclasses.replace(game, A=U @ A @ U.T, B=U @ B, A_bar=U @ A_bar @ U.T, x_target=U @ target, m0=U @ m0)
    one, other = solve(game), solve(turned)
    assert other.value == pytest.approx(one.value, abs=1e-10)
    np.testing.assert_allclose(other.mean_field.means, one.mean_field.means @ U.T, atol=1e-10)
    np.testing.assert_allclose(other.policy.K, one.policy.K @ U.T, atol=1e-10)


def test_coordinates_that_do_not_meet_are_games_of_their_own():
    both = LinearQuadratic(dim=2, A=(0.9, -0.7), B=(0.2, 0.5), A_bar=(0.1, 0.4), x_target=(1.0, 3.0), m0=(-1.0, 2.0))
    A, B, A_bar, target, m0 = (getattr(both, name) for name in ("A", "B", "A_bar", "x_target", "m0"))
    each = [solve(LinearQuadratic(A=A[i], B=B[i], A_bar=A_bar[i], x_target=target[i], m0=m0[i])) for i in range(2)]
    found = solve(both)
    assert found.value == pytest.approx(sum(one.value for one in each), abs=1e-10)
    for i in range(2):
        np.testing.assert_allclose(found.mean_field.means[:, i], each[i].mean_field.means[:, 0], atol=1e-10)


# --- best responses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_best_response_by_brute_force(horizon, seed):
    """All affine policies of a small game, searched by a general-purpose optimiser on the exact return."""
    game = LinearQuadratic(horizon=horizon, A=0.8, B=0.7, A_bar=0.3, sigma=0.4, s0=0.6)
    crowd = np.random.default_rng(seed).normal(size=(horizon + 1, 1))

    def policy(flat):
        return AffinePolicy(flat[:horizon].reshape(-1, 1, 1), flat[horizon:].reshape(-1, 1))

    found = minimize(lambda flat: -moments(game, policy(flat), crowd)[2], np.zeros(2 * horizon), tol=1e-12)
    best = best_response(game, frozen(crowd))
    assert best.value == pytest.approx(-found.fun, abs=1e-8)
    np.testing.assert_allclose(best.policy.K, policy(found.x).K, atol=1e-4)
    np.testing.assert_allclose(best.policy.k, policy(found.x).k, atol=1e-4)


@all_cases
def test_best_response_is_best(game):
    """Against an arbitrary crowd its value is its exact return, and whatever is perturbed returns less."""
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(game.horizon + 1, game.dim))
    best = best_response(game, frozen(crowd))
    value = moments(game, best.policy, crowd)[2]
    assert best.value == pytest.approx(value, rel=1e-10, abs=1e-12)
    for scale in (1e-2, 0.3):
        for _ in range(5):
            assert moments(game, shifted(best.policy, affine(game, rng, scale)), crowd)[2] < value
    x = rng.normal(size=(4, game.dim))
    np.testing.assert_array_equal(best(0, x), best.policy(0, x))


@some_cases
def test_value_is_what_play_returns(game):
    found = solve(game)
    for mean_field in (found.mean_field, None):  # the frozen crowd, and the crowd of 20,000 players
        returns = simulate(game, found.policy, mean_field, num_agents=20_000, seed=1).returns
        assert abs(returns.mean() - found.value) < 4 * returns.std() / np.sqrt(len(returns))
    assert returns.std() / np.sqrt(len(returns)) < 0.01 * abs(found.value)


@some_cases
def test_any_mean_field_of_the_same_means_has_the_same_best_response(game):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(game.horizon + 1, 40, game.dim))
    flow = Flow(game.dim, game.horizon, game.action_dim)
    flow.standardise(x)
    exact = best_response(game, frozen(x.mean(axis=1)))
    for mean_field, tolerance in ((Empirical.from_trajectories(x), 1e-10), (flow, 1e-3)):
        assert best_response(game, mean_field).value == pytest.approx(exact.value, rel=tolerance)


@pytest.mark.parametrize("horizon", [19, 21])
def test_mean_fields_of_another_horizon_are_refused(horizon):
    with pytest.raises(ValueError, match="horizon"):
        best_response(CASES["default"], frozen(np.zeros((horizon + 1, 1))))


def test_mean_fields_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"mean.field"):
        best_response(CASES["default"], frozen(np.zeros((21, 2))))


def test_where_the_box_binds_the_value_is_an_upper_bound():
    """The closed form knows no box: it says how likely its actions leave it, and play returns less."""
    tame = solve(CASES["default"])
    assert tame.outside_box < 1e-6
    assert not tame.value_is_upper_bound
    game = LinearQuadratic(c_a=1e-3, x_target=20.0)
    wild = solve(game)
    assert wild.outside_box == 1.0
    assert wild.value_is_upper_bound
    assert best_response(game, wild.mean_field).outside_box == pytest.approx(1.0)
    played = simulate(game, wild.policy, wild.mean_field, num_agents=1000, seed=0).returns
    assert played.mean() + 5 * played.std() / np.sqrt(1000) < wild.value


@pytest.mark.parametrize("crowd", ["its own", "far off"])
def test_outside_box_is_how_often_actions_leave_it(crowd):
    """The sum over t of P(|a_t| > 10), as counted in play, is above the share of agents that ever leave."""
    game = LinearQuadratic(A_bar=0.4, x_target=4.0, s0=0.8)
    means = solve(game).mean_field.means if crowd == "its own" else np.full((21, 1), -1.0)
    best = best_response(game, frozen(means))
    x = simulate(game, best, frozen(means), num_agents=20_000, seed=0).states
    left = np.stack([np.abs(best(t, x[t])) > 10 for t in range(game.horizon)])
    assert best.outside_box == pytest.approx(left.mean(axis=1).sum(), rel=0.1)
    assert 0.003 < left.any(axis=(0, 2)).mean() <= best.outside_box * 1.1


# --- exploitability ------------------------------------------------------------------------------------------------


@all_cases
def test_equilibrium_is_not_exploitable(game):
    found = exploitability(game, solve(game).policy, num_agents=200)
    assert 0 <= found.value < 1e-10 * max(1.0, abs(found.policy_return))
    assert abs(found.lower) < 1e-8 * max(1.0, abs(found.policy_return))


@some_cases
@pytest.mark.parametrize("action_std", [0.0, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_exploitability_is_the_difference_of_exact_returns(game, action_std, seed):
    """J(best; mu) - J(policy; mu) by moments: for affine policies around the equilibrium, also random ones."""
    policy = shifted(solve(game).policy, affine(game, np.random.default_rng(seed)))
    found = exploitability(game, Noisy(policy, action_std) if action_std else policy, num_agents=20_000, seed=seed)
    crowd, _, own = moments(game, policy, action_std=action_std)
    exact = gap(game, policy, action_std)
    tolerance = 4 * found.stderr + 3 * found.crowd_error
    assert tolerance < 0.1 * exact
    assert found.value == pytest.approx(exact, abs=tolerance)
    assert found.best_response_return == pytest.approx(
        moments(game, best_response(game, frozen(crowd)).policy, crowd)[2], rel=0.01
    )
    assert found.policy_return == pytest.approx(own, rel=0.02)
    assert found.policy_return + found.value == pytest.approx(found.best_response_return)
    assert found.resolution_error == 0
    assert float(found) == found.value


@some_cases
def test_lower_is_achieved_by_play(game):
    """Common noise makes it nearly as sharp as the identity: both estimate one difference of returns."""
    policy = shifted(solve(game).policy, affine(game, np.random.default_rng(3)))
    found = exploitability(game, policy, num_agents=20_000)
    assert found.lower == pytest.approx(gap(game, policy), rel=0.05)
    assert found.lower == pytest.approx(found.value, rel=0.05)


@some_cases
def test_exploitability_grows_with_the_square_of_the_perturbation(game):
    exact = solve(game).policy
    by = affine(game, np.random.default_rng(4), 0.05)
    values = [exploitability(game, shifted(exact, by, eps), num_agents=4000).value for eps in (0.1, 0.2, 0.4)]
    assert values[0] > 0
    np.testing.assert_allclose(np.divide(values[1:], values[:-1]), 4.0, rtol=0.05)
    assert exploitability(game, shifted(exact, by, -0.2), num_agents=4000).value == pytest.approx(values[1], rel=0.05)


def test_stderr_shrinks_with_the_root_of_the_number_and_is_right():
    """Over seeds, estimates spread by their stderr; 16 times the agents, a quarter of it."""
    game, policy = CASES["default"], AffinePolicy(np.ones((20, 1, 1)), np.full((20, 1), -0.5))
    few, many = ([exploitability(game, policy, number, seed=s) for s in range(40)] for number in (100, 1600))
    typical = [np.mean([found.stderr for found in group]) for group in (few, many)]
    assert typical[0] / typical[1] == pytest.approx(4, rel=0.15)
    for group, stderr in zip((few, many), typical, strict=True):
        assert np.std([found.value for found in group]) == pytest.approx(stderr, rel=0.4)


def test_seeds_of_exploitability():
    game, policy = CASES["default"], Noisy(solve(CASES["default"]).policy, 0.5)
    assert exploitability(game, policy, 100, seed=1) == exploitability(game, policy, 100, seed=1)
    assert exploitability(game, policy, 100, seed=1) != exploitability(game, policy, 100, seed=2)


def test_crowd_error_is_that_of_random_crowds():
    """Antithetic agents make the mean exact for affine policies; for random ones it is off, less with more agents."""
    game, exact = CASES["default"], solve(CASES["default"]).policy
    assert exploitability(game, shifted(exact, affine(game, np.random.default_rng(0))), 400).crowd_error < 1e-9
    errors = [
        np.mean([exploitability(game, Noisy(exact, 1.0), number, seed).crowd_error for seed in range(10)])
        for number in (100, 10_000)
    ]
    assert 0 < errors[1] < errors[0] / 3


def test_a_mixture_is_drawn_for_each_agent():
    """Two camps at a* + delta and a* - delta make the equilibrium's mean crowd: they lose sum_t W_t delta^2 exactly.

    Played as an average action they would lose nothing. W_t = c_a + B^2 P_{t+1} is what one unit off costs.
    """
    game, delta = CASES["default"], 0.7
    exact = solve(game)
    found = exploitability(game, Camps(exact.policy, delta), num_agents=1000)
    crowd, one = exact.mean_field.means, AffinePolicy(np.zeros((20, 1, 1)), np.full((20, 1), delta))
    cost = 0.0
    for t in range(20):  # one deviation by delta, at t alone, costs W_t delta^2
        only = AffinePolicy(one.K, one.k * (np.arange(20) == t)[:, None])
        cost += exact.value - moments(game, shifted(exact.policy, only), crowd)[2]
    assert found.value == pytest.approx(cost, rel=1e-9)
    assert found.stderr < 1e-9


@pytest.mark.parametrize("components", [1, 3])
def test_network_policies(components):
    """Untrained it plays noise around nothing: its exploitability is that of nothing and of the noise."""
    torch.manual_seed(0)
    game = CASES["default"]
    policy = AveragePolicy(1, 1, 20, (0.0,), (1.0,), (10.0,), components=components)
    zero = AffinePolicy(np.zeros((20, 1, 1)), np.zeros((20, 1)))
    found = exploitability(game, policy, num_agents=10_000)
    with torch.no_grad():  # the same for all states
        _, mean, log_std = policy.parameters_at(torch.zeros(1), torch.zeros(1, 1))
    variance = (mean**2 + (2 * log_std).exp()).mean().item()
    assert found.value == pytest.approx(gap(game, zero, action_std=10 * np.sqrt(variance)), rel=0.02)
    assert found == exploitability(game, policy, num_agents=10_000)
    x = np.zeros((5, 1))
    np.testing.assert_allclose(policy.mean_action(0, x), 0, atol=1e-6)
    assert policy(0, x).shape == (5, 1)
    assert policy(0, x).dtype == np.float64


def test_draws_of_network_policies_follow_their_density():
    """Three components of weights 1 : e : e^2 apart from each other: Kolmogorov-Smirnov, and the mean action."""
    policy = AveragePolicy(1, 1, 20, (0.0,), (1.0,), (10.0,), components=3)
    with torch.no_grad():
        policy.net[-1].bias.view(3, 3)[:, :2] = torch.tensor([[0.0, -0.5], [1.0, 0.1], [2.0, 0.6]])
    a = np.linspace(-15, 15, 3001)
    at = (
        torch.zeros(len(a), dtype=torch.int64),
        torch.zeros(len(a), 1),
        torch.as_tensor(a[:, None], dtype=torch.float32),
    )
    density = policy.log_prob(*at).exp().detach().numpy()
    assert np.trapezoid(density, a) == pytest.approx(1, abs=1e-4)
    policy.reset(4000, np.random.default_rng(0))
    draws = policy(0, np.zeros((4000, 1)))[:, 0]
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(a))])
    assert kstest(draws, lambda v: np.interp(v, a, cdf)).pvalue > 0.01
    assert policy.mean_action(0, np.zeros((1, 1))).item() == pytest.approx(np.trapezoid(a * density, a), abs=1e-3)


def test_the_mean_policy_plays_the_mean_action_and_learns_nothing_more():
    torch.manual_seed(0)
    policy = AveragePolicy(2, 3, 20, (0.0, 1.0), (1.0, 2.0), (10.0, 1.0, 0.1), waves=2)
    torch.nn.init.normal_(policy.net[-1].weight)
    torch.nn.init.normal_(policy.net[-1].bias)
    mean, x = policy.mean_policy(), np.random.default_rng(0).standard_normal((50, 2))
    actions = mean(7, x)
    assert actions.std(axis=0).min() > 0.01
    np.testing.assert_allclose(actions, policy.mean_action(7, x), rtol=1e-5, atol=1e-6)
    torch.nn.init.normal_(policy.net[-1].weight)
    np.testing.assert_array_equal(mean(7, x), actions)
    with pytest.raises(ValueError, match="the mean of a head of 2 components is no network: take one component"):
        AveragePolicy(1, 1, 20, (0.0,), (1.0,), (10.0,), components=2).mean_policy()


def test_actions_outside_the_box_are_judged_as_projected():
    game = CASES["default"]
    wild = exploitability(game, lambda t, x: np.full_like(x, 1e6), num_agents=100)
    edge = exploitability(game, lambda t, x: np.full_like(x, 10.0), num_agents=100)
    assert wild == edge


@pytest.mark.parametrize("number", [0, 2, 7, -4, 5.5, "8"])
def test_bad_numbers_of_agents(number):
    with pytest.raises(ValueError, match="num_agents"):
        exploitability(CASES["default"], nothing, num_agents=number)


@pytest.mark.parametrize("output", [np.zeros((4, 2)), np.zeros(4), np.full((4, 1), np.nan)])
def test_bad_policies(output):
    with pytest.raises(ValueError, match="action"):
        exploitability(CASES["default"], lambda t, x: output, num_agents=4)


@pytest.mark.parametrize(
    "ask",
    [solve, lambda game: best_response(game, frozen(np.zeros((3, 3)))), lambda game: exploitability(game, nothing)],
    ids=["solve", "best_response", "exploitability"],
)
def test_games_without_an_oracle(ask):
    class Odd(Game):
        dim, action_dim, horizon = 3, 1, 2  # beyond the grid, and not linear-quadratic
        state_low, state_high = (property(lambda self, end=end: np.full(3, end)) for end in (-1.0, 1.0))
        action_low, action_high = (property(lambda self, end=end: np.full(1, end)) for end in (-1.0, 1.0))
        initial_state = step = reward = lambda self, *arrays: arrays[0]

    with pytest.raises(ValueError, match="Odd"):
        ask(Odd())


def test_a_closed_form_takes_no_resolution():
    with pytest.raises(ValueError, match="LinearQuadratic is solved in closed form, which takes no cells"):
        solve(CASES["default"], cells=40)
