"""The three questions one can ask of any game: its equilibrium, a best response, how far a policy is from Nash.

Linear-quadratic games are answered in closed form (`linear_quadratic.py`), other games of dimension 1 or 2 on a grid
(`grid.py`). docs/oracles.md says what each figure means.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mfg_envs.envs import Policy
from mfg_envs.equilibrium import grid, linear_quadratic
from mfg_envs.equilibrium.results import BestResponse, Equilibrium, Exploitability
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField


def solve(game: Game, **resolution: Any) -> Equilibrium:
    """The mean field equilibrium: in closed form for linear-quadratic games, else by fictitious play on a grid.

    Args:
        game: a linear-quadratic game, or one of dimension 1 or 2.
        resolution: for the grid: `cells`, `actions`, `iterations`, `averaging`, `tolerance`, `bounds`,
            `resolution_error`, `progress` and `cache`, as in `mfg_envs.equilibrium.grid.solve`.

    Raises:
        ValueError: if there is no unique equilibrium (closed form), if the grid's arguments are out of range, or if
            there is no oracle for a game of this dimension.
    """
    if linear_quadratic.has_closed_form(game, **resolution):
        return linear_quadratic.solve(game)
    return grid.solve(game, **resolution)


def best_response(game: Game, mean_field: MeanField, **resolution: Any) -> BestResponse:
    """The best policy against a frozen crowd, and its expected return there.

    Args:
        game: a linear-quadratic game, or one of dimension 1 or 2.
        mean_field: the crowd.
        resolution: for the grid: `cells`, `actions` and `bounds`.

    Raises:
        ValueError: if the mean field is not of the game's horizon and dimension, if the grid's arguments are out of
            range, or if there is no oracle for a game of this dimension.
    """
    if linear_quadratic.has_closed_form(game, **resolution):
        return linear_quadratic.best_response(game, mean_field)
    return grid.best_response(game, mean_field, **resolution)


def exploitability(
    game: Game, policy: Policy, num_agents: int = 10_000, seed: int = 0, **resolution: Any
) -> Exploitability:
    """How much a best response gains over `policy` in the crowd of those who play it.

    For a linear-quadratic game, the crowd's means are those of `num_agents` simulated agents in mirrored pairs, which
    makes them exact for linear policies. In that crowd the gain is read by the performance-difference identity,

        J(best; mu) - J(policy; mu) = sum_t E (a_t - a*_t)' (R + B'P_{t+1}B) (a_t - a*_t),

    which is never negative and has no noise of rewards in it. On a grid, the crowd is the policy's push-forward through
    the transition operator, without sampling noise, and both returns are sums; `num_agents` play for `.lower`.

    Args:
        game: a linear-quadratic game, or one of dimension 1 or 2.
        policy: any callable `policy(t, x)`: t an int, x (n, d) float64 -> a (n, k). If it has `reset(n, rng)`, that is
            called before t = 0: a stochastic policy seeds itself there, a mixture draws each agent's component there.
        num_agents: number of simulated agents, even and at least 4.
        seed: of the simulation.
        resolution: for the grid: `cells`, `actions` and `bounds`.

    Raises:
        ValueError: if the policy returns NaN or misshapen actions, if `num_agents` or the grid's arguments do not fit,
            or if there is no oracle for a game of this dimension.
    """
    if not isinstance(num_agents, (int, np.integer)) or num_agents < 4 or num_agents % 2:
        raise ValueError(f"num_agents must be an even integer of at least 4, got {num_agents!r}")
    if linear_quadratic.has_closed_form(game, **resolution):
        return linear_quadratic.exploitability(game, policy, num_agents, seed)
    return grid.exploitability(game, policy, num_agents, seed, **resolution)
