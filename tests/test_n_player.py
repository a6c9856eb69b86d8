"""The gain of a deviation in the N-player game, against brute force that knows nothing of Riccati and of grids."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy.optimize import minimize

from mfg_envs.envs import simulate
from mfg_envs.equilibrium import (
    AffinePolicy,
    Mixture,
    NPlayerGap,
    exploitability,
    n_player,
    n_player_gap,
    solve,
)
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic, PriceImpact
from mfg_envs.mean_field import Empirical
from mfg_envs.testing import Probe

# --- linear-quadratic games ------------------------------------------------------------------------------------------

GAMES = {
    "lq": LinearQuadratic(horizon=3, A_bar=0.4, c_m=0.8),
    "price impact": PriceImpact(horizon=3, dt=0.3, gamma=2.0),
}


def deviator_return(game, policy, N, parameters):
    """E of agent 0's return, exactly: rewards are quadratic, so the 2N points mean ± sqrt(N) L_i integrate them.

    Agent 0 plays a = -(G x + H w + g) with w the mean of the others; they play the policy.
    """
    G, H, g = parameters.reshape(3, game.horizon)
    mean, covariance, total = np.full(N, game.m0), game.s0**2 * np.eye(N), 0.0
    sigma = game.step(0, np.zeros((1, 1)), np.zeros((1, 1)), Probe(mean=np.zeros(1)), np.ones((1, 1))).item()
    for t in range(game.horizon + 1):
        root = math.sqrt(N) * np.linalg.cholesky(covariance)
        points = np.concatenate([mean + root.T, mean - root.T])  # (2N, N)
        moved = []
        for x in points:
            if t == game.horizon:
                total += game.terminal_reward(x[:1, None], Probe(mean=np.array([x.mean()]))).item() / len(points)
                continue
            a = -(policy.K[t] * x[:, None] + policy.k[t])
            a[0] = -(G[t] * x[0] + H[t] * x[1:].mean() + g[t])
            mu = Probe(mean=np.array([x.mean()]), mean_action=a.mean(axis=0))
            total += game.reward(t, x[:1, None], a[:1], mu).item() / len(points)
            moved.append(game.step(t, x[:, None], a, mu, np.zeros((N, 1)))[:, 0])
        if t < game.horizon:
            moved = np.array(moved)
            mean = moved.mean(axis=0)
            covariance = (moved - mean).T @ (moved - mean) / len(points) + sigma**2 * np.eye(N)
    return total


@pytest.mark.parametrize("N", [2, 5])
@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("off", [0.0, 0.3])
def test_no_deviation_found_by_brute_force_is_better(name, N, off):
    game = GAMES[name]
    nash = solve(game).policy
    policy = AffinePolicy(nash.K + off, nash.k - off)
    stay = np.concatenate([policy.K[:, 0, 0], np.zeros(game.horizon), policy.k[:, 0]])
    best = minimize(lambda p: -deviator_return(game, policy, N, p), stay, options={"gtol": 1e-9})
    earned = deviator_return(game, policy, N, stay)
    found = n_player_gap(game, policy, N)
    assert found.value == pytest.approx(-best.fun - earned, rel=1e-4)
    assert found.policy_return == pytest.approx(earned, rel=1e-12)
    assert (found.stderr, found.difference_stderr, found.below_noise) == (0, 0, False)


@pytest.mark.parametrize("game", [LinearQuadratic(), PriceImpact()])
def test_with_N_to_infinity_it_is_the_mean_field_game(game):
    nash = solve(game)
    equilibrium = n_player_gap(game, nash.policy, 100)
    assert equilibrium.mean_field_return == pytest.approx(nash.value, rel=1e-12)
    policy = AffinePolicy(nash.policy.K + 0.3, nash.policy.k - 0.3)
    many, judged = n_player_gap(game, policy, 10**8), exploitability(game, policy)
    assert many.value == pytest.approx(judged.value, abs=5 * judged.stderr)
    assert many.mean_field_return == pytest.approx(judged.policy_return, rel=0.01)
    assert many.policy_return == pytest.approx(many.mean_field_return, rel=1e-6)


def test_the_gap_of_the_equilibrium_falls_like_one_over_N():
    nash = solve(LinearQuadratic()).policy
    found = [n_player_gap(LinearQuadratic(), nash, N) for N in (100, 1000, 10_000)]
    np.testing.assert_allclose([float(gap) for gap in found], [3.863e-5, 3.664e-6, 3.645e-7], rtol=1e-3)
    assert found[0].difference == pytest.approx(100 * found[2].difference, rel=1e-6)


def test_without_interaction_there_is_nothing_to_gain():
    game = LinearQuadratic(A_bar=0.0, c_m=0.0)
    found = n_player_gap(game, solve(game).policy, 2)
    assert found.value == pytest.approx(0.0, abs=1e-20)
    assert found.difference == pytest.approx(0.0, abs=1e-12)


def test_coordinates_that_do_not_meet_add_up():
    one, both = (n_player_gap(game, solve(game).policy, 7) for game in (LinearQuadratic(), LinearQuadratic(dim=2)))
    assert both.value == pytest.approx(2 * one.value, rel=1e-10)
    assert both.difference == pytest.approx(2 * one.difference, rel=1e-8)


# --- games that pay for the density ----------------------------------------------------------------------------------

SHORT = BeachBar(horizon=3, dt=0.3, c_m=1.0, s0=0.3)


def towards_the_bar(t, x):
    return np.clip(2 * (0.4 - x), -1, 1)


def idle(t, x):
    return np.zeros_like(x)


def brute_force(game, policy, N, points, bins):
    """The gap and J_N of a beach bar, by dynamic programming on a line of points, with linear interpolation.

    r_N is a sum over the places of the others, in bins, each with a kernel density of its own.
    """
    z, w = np.polynomial.hermite_e.hermegauss(41)
    x, actions = np.linspace(-1, 1, points), np.linspace(-1, 1, 81)
    centres = (np.arange(bins) + 0.5) / bins * 2 - 1
    places = np.stack(np.meshgrid(*[centres] * (N - 1)), axis=-1).reshape(-1, N - 1)
    places, index = np.unique(np.sort(places, axis=1), axis=0, return_inverse=True)
    crowd = np.empty((N, 1))
    met = np.empty((len(places), points))
    for i, crowd[1:, 0] in enumerate(places):
        for j, crowd[0] in enumerate(x):
            met[i, j] = Empirical(crowd, floor=game.floor).leave_one_out().log_density(crowd)[0]

    def ahead(values, x, a):
        rows = np.repeat(x, len(z))[:, None], np.repeat(a, len(z))[:, None]
        there = game.step(0, *rows, None, np.tile(z, len(x))[:, None])
        return np.interp(there[:, 0], np.linspace(-1, 1, points), values).reshape(len(x), -1) @ w / w.sum()

    states = simulate(game, policy, num_agents=200_000, seed=0).states[..., 0]
    best = kept = np.zeros(points)
    for t in reversed(range(game.horizon)):
        share = np.histogram(states[t], bins, (-1, 1))[0] / len(states[t])
        chance = np.bincount(index.ravel(), np.prod(np.meshgrid(*[share] * (N - 1)), axis=0).ravel())
        crowds = [Probe(log_density=lambda _, row=row: row) for row in met]
        resting = chance @ [game.reward(t, x[:, None], np.zeros((points, 1)), mu) for mu in crowds]
        q = [resting - game.dt * game.c_a * a**2 + ahead(best, x, np.full(points, a)) for a in actions]
        best, played = np.max(q, axis=0), policy(t, x[:, None])[:, 0]
        kept = resting - game.dt * game.c_a * played**2 + ahead(kept, x, played)
    return np.interp(states[0], x, best - kept).mean(), np.interp(states[0], x, kept).mean()


@pytest.mark.parametrize(("N", "points", "bins"), [(2, 61, 81), (3, 41, 31)])
def test_the_gap_of_sampled_crowds_is_that_of_brute_force(N, points, bins):
    gap, earned = brute_force(SHORT, towards_the_bar, N, points, bins)
    found = n_player_gap(SHORT, towards_the_bar, N, crowds=1000, cells=100)
    assert found.value == pytest.approx(gap, abs=4 * found.stderr + 0.01 * gap)
    assert found.policy_return == pytest.approx(earned, abs=0.02 * abs(earned))
    assert gap > 25 * found.stderr


@dataclass(frozen=True)
class CrowdedEnd(BeachBar):
    """A beach bar at whose end the crowd is dear once more."""

    def terminal_reward(self, x, mu):
        xp = array_namespace(x)
        return -xp.log(xp.exp(mu.log_density(x)) + self.eps)


def diagonal(t, x):
    return np.full_like(x, 0.6)


class Hesitant:
    """Each agent goes or stays, by a coin of its own at the start."""

    def reset(self, n, rng):
        self.going = rng.random((n, 1)) < 0.5

    def __call__(self, t, x):
        return diagonal(t, x) * self.going


@pytest.mark.parametrize(
    ("game", "policy"),
    [
        (CrowdedEnd(horizon=4), diagonal),
        (BeachBar(horizon=8, s0=0.02), Hesitant()),
        (BeachBar(horizon=8, s0=0.02), Mixture([diagonal, idle], [0.5, 0.5])),
        (FourRooms(horizon=4, s0=0.3), diagonal),
        (FourRooms(crowd="congestion", horizon=4, s0=0.3, alpha=2.0), diagonal),
    ],
)
def test_returns_are_those_of_the_environment(game, policy):
    """J_N: the mean return of N agents in each other's company, over many episodes."""
    found = n_player_gap(game, policy, 5, crowds=200, cells=12)
    episodes = [simulate(game, policy, num_agents=5, seed=seed).returns.mean() for seed in range(200)]
    stderr = math.hypot(np.std(episodes) / 200**0.5, 2 * found.difference_stderr)
    assert found.policy_return == pytest.approx(np.mean(episodes), abs=4 * stderr)


def test_a_policy_that_is_bad_in_the_mean_field_is_as_bad_among_many():
    game = BeachBar()
    found, judged = n_player_gap(game, idle, 10_000, cells=50, crowds=8), exploitability(game, idle, cells=50)
    assert found.value == pytest.approx(judged.value, rel=0.01)
    assert found.mean_field_return == pytest.approx(judged.policy_return, rel=0.01)


def test_the_equilibrium_is_nearly_one_of_many_players():
    game = BeachBar(horizon=20)
    nash = solve(game, cells=50, iterations=30)
    few, many = (n_player_gap(game, nash.policy, N, cells=50, crowds=crowds) for N, crowds in ((30, 1000), (1000, 40)))
    assert -3 * many.stderr < many.value < nash.exploitability + 0.004
    assert few.value > 1.5 * many.value
    assert 0 < many.difference < 0.1 * few.difference  # few agents leave gaps between them, where the density is low
    assert many.mean_field_return == pytest.approx(nash.value, abs=0.02)


def test_a_crowd_that_nobody_minds():
    """Then J_N is J, and what is planned for any crowd is the best response."""
    game = FourRooms(crowd="congestion", c_c=0.0, horizon=5)
    found = n_player_gap(game, idle, 40, cells=20, crowds=40)
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert found.value == pytest.approx(exploitability(game, idle, cells=20).value, rel=0.05)


def test_what_is_seen_in_the_noise_of_a_few_crowds_is_no_gain(monkeypatch):
    """Everybody is uniform and stays so, and only the density counts: there is nothing to look for anywhere."""
    flat = BeachBar(horizon=10, c_x=0.0, s0=5.0)
    assert n_player_gap(flat, idle, 100, cells=40, crowds=200).below_noise
    monkeypatch.setattr(n_player, "PLANNED", (4, 4))
    misled = n_player_gap(flat, idle, 100, cells=40, crowds=200)
    assert misled.value < -3 * misled.stderr


def test_a_mean_field_that_is_known_need_not_be_computed():
    nash = solve(SHORT, cells=30, iterations=3)
    one, same = (
        n_player_gap(SHORT, nash.policy, 4, crowds=8, cells=30, **known)
        for known in ({}, {"mean_field": nash.mean_field})
    )
    assert same.value == one.value
    assert same.mean_field_return == pytest.approx(one.mean_field_return, abs=1e-9)
    with pytest.raises(ValueError, match="the mean field has horizon 3, the game has 2"):
        n_player_gap(BeachBar(horizon=2), nash.policy, 4, mean_field=nash.mean_field)


def test_reproducible_by_seed():
    one, same, other = (n_player_gap(SHORT, towards_the_bar, 4, seed=seed, crowds=8, cells=20) for seed in (1, 1, 2))
    assert one == same
    assert one.value != other.value


def test_more_crowds_than_are_moved_at_a_time(monkeypatch):
    whole = n_player_gap(SHORT, towards_the_bar, 4, crowds=300, cells=20)
    monkeypatch.setattr(n_player, "BATCH", 1000)
    parts = n_player_gap(SHORT, towards_the_bar, 4, crowds=300, cells=20)
    assert parts.value == pytest.approx(whole.value, abs=4 * (whole.stderr + parts.stderr))
    assert parts.stderr == pytest.approx(whole.stderr, rel=0.5)


def test_below_noise():
    assert NPlayerGap(0.1, 0.06, -1.0, -1.5, 0.1).below_noise
    found = NPlayerGap(0.1, 0.04, -1.0, -1.5, 0.1)
    assert not found.below_noise
    assert float(found) == 0.1
    assert found.difference == 0.5


@dataclass(frozen=True)
class Following(BeachBar):
    """A beach bar whose crowd carries one along."""

    dynamics_reads: ClassVar[frozenset[str]] = frozenset({"mean"})


@dataclass(frozen=True)
class Gathering(BeachBar):
    """A beach bar at which one looks for the others' mean."""

    reward_reads: ClassVar[frozenset[str]] = frozenset({"log_density", "mean"})


class Endless(BeachBar):
    """A beach without ends."""

    floor = None


def test_bad_input():
    lq, beach = LinearQuadratic(), BeachBar(horizon=2)
    nash = solve(lq).policy
    for N in (1, 2.0, True):
        for game in (lq, beach):
            with pytest.raises(ValueError, match="num_agents must be an integer of at least 2"):
                n_player_gap(game, nash, N)
    with pytest.raises(TypeError, match="policy must be an AffinePolicy"):
        n_player_gap(lq, idle, 10)
    with pytest.raises(ValueError, match="closed form, which takes no crowds"):
        n_player_gap(lq, nash, 10, crowds=10)
    for crowds in (1, 2.5, True):
        with pytest.raises(ValueError, match="crowds must be an integer of at least 2"):
            n_player_gap(beach, idle, 10, crowds=crowds)
    with pytest.raises(ValueError, match="the dynamics of Following read the crowd"):
        n_player_gap(Following(), idle, 10)
    with pytest.raises(ValueError, match="its rewards read"):
        n_player_gap(Gathering(), idle, 10)
    with pytest.raises(ValueError, match="Endless has no floor"):
        n_player_gap(Endless(), idle, 10)
    with pytest.raises(ValueError, match="policy must return actions of shape"):
        n_player_gap(beach, lambda t, x: x[:, 0], 10)
    with pytest.raises(ValueError, match="NaN"):
        n_player_gap(beach, lambda t, x: np.where(x > 0.123456, np.nan, x), 10)
    with pytest.raises(ValueError, match="cells must be"):
        n_player_gap(beach, idle, 10, cells=2)
