"""The three questions one can ask of any game: its equilibrium, a best response, how far a policy is from Nash."""

from __future__ import annotations

import numpy as np

from mfg_envs.envs import Policy
from mfg_envs.equilibrium import linear_quadratic
from mfg_envs.equilibrium.results import BestResponse, Equilibrium, Exploitability
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField


def solve(game: Game) -> Equilibrium:
    """The mean field equilibrium of a linear-quadratic game, exactly (`equilibrium/linear_quadratic.py`).

    Raises:
        ValueError: if there is no unique equilibrium.
        TypeError: for a game without an oracle.
    """
    return linear_quadratic.solve(game)


def best_response(game: Game, mean_field: MeanField) -> BestResponse:
    """The best policy against a frozen crowd, and its expected return there.

    Raises:
        TypeError: for a game without an oracle.
    """
    return linear_quadratic.best_response(game, mean_field)


def exploitability(game: Game, policy: Policy, num_agents: int = 10_000, seed: int = 0) -> Exploitability:
    """How much a best response gains over `policy` in the crowd of those who play it.

    The crowd's means are those of `num_agents` simulated agents in mirrored pairs, which makes them exact for linear
    policies. In that crowd the gain is read by the performance-difference identity,

        J(best; mu) - J(policy; mu) = sum_t E (a_t - a*_t)' (R + B'P_{t+1}B) (a_t - a*_t),

    which is never negative and has no noise of rewards in it.

    Args:
        game: a linear-quadratic game.
        policy: any callable `policy(t, x)`: t an int, x (n, d) float64 -> a (n, k). If it has `reset(n, rng)`, that is
            called before t = 0: a stochastic policy seeds itself there, a mixture draws each agent's component there.
        num_agents: number of simulated agents, even and at least 4.
        seed: of the simulation.

    Raises:
        ValueError: if the policy returns NaN or misshapen actions, or `num_agents` does not fit.
        TypeError: for a game without an oracle.
    """
    if not isinstance(num_agents, (int, np.integer)) or num_agents < 4 or num_agents % 2:
        raise ValueError(f"num_agents must be an even integer of at least 4, got {num_agents!r}")
    return linear_quadratic.exploitability(game, policy, num_agents, seed)
