"""The gain of a deviation in the N-player game, against brute force that knows nothing of Riccati."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from mfg_envs.equilibrium import AffinePolicy, n_player_gap, solve
from mfg_envs.games import BeachBar, LinearQuadratic, PriceImpact
from mfg_envs.testing import Probe

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
    gain = -best.fun - deviator_return(game, policy, N, stay)
    assert n_player_gap(game, policy, N) == pytest.approx(gain, rel=1e-4)


def test_the_gap_of_the_equilibrium_falls_like_one_over_N():
    nash = solve(LinearQuadratic()).policy
    gaps = [n_player_gap(LinearQuadratic(), nash, N) for N in (100, 1000, 10_000)]
    np.testing.assert_allclose(gaps, [3.9e-5, 3.7e-6, 3.6e-7], rtol=0.02)


def test_without_interaction_there_is_nothing_to_gain():
    game = LinearQuadratic(A_bar=0.0, c_m=0.0)
    assert n_player_gap(game, solve(game).policy, 2) == pytest.approx(0.0, abs=1e-20)


def test_coordinates_that_do_not_meet_add_up():
    one, both = LinearQuadratic(), LinearQuadratic(dim=2)
    gaps = [n_player_gap(game, solve(game).policy, 7) for game in (one, both)]
    assert gaps[1] == pytest.approx(2 * gaps[0], rel=1e-10)


def test_bad_input():
    nash = solve(LinearQuadratic()).policy
    with pytest.raises(ValueError, match="num_agents must be an integer of at least 2"):
        n_player_gap(LinearQuadratic(), nash, 1)
    with pytest.raises(TypeError, match="policy must be an AffinePolicy"):
        n_player_gap(LinearQuadratic(), lambda t, x: x, 10)
    with pytest.raises(TypeError, match="not a linear-quadratic game"):
        n_player_gap(BeachBar(), nash, 10)
