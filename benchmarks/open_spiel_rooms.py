"""OpenSpiel's four rooms on 13 x 13 cells, written for our finite games: the same numbers without OpenSpiel.

In OpenSpiel it is `mfg_crowd_modelling_2d` with the setting "crowd_modelling_2d_four_rooms". An agent chooses to stay
or to go to one of the free cells beside its own; then, with probability `noise`, it goes on to one that is drawn from
the free ones there, its own among them. For t = 0, ..., T-1 it earns -log(mu_t(x) + 1e-25), where mu_t is the mass of
its cell, with one exception that is OpenSpiel's: at t = 0 every cell counts as if it held 1/169.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from mfg_envs.equilibrium.finite import FiniteGame

SIZE, HORIZON = 13, 40
CENTRE, DOORS = 6, (3, 9)
MOVES = np.array([[0, -1], [-1, 0], [0, 0], [1, 0], [0, 1]])
EPSILON = 1e-25
NASH_CONV = {1.0: 167.660446, 0.1: 329.275043, 0.0: 383.107146}  # of the uniform policy, by noise: OpenSpiel 2.0.2


def four_rooms(noise: float = 1.0) -> tuple[FiniteGame, np.ndarray]:
    """The game, and its uniform policy over legal moves, (T, n, m). Where a move is illegal, it is to stay."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    wall = (np.minimum(x, y) == 0) | (np.maximum(x, y) == SIZE - 1)
    wall |= ((x == CENTRE) & ~np.isin(y, DOORS)) | ((y == CENTRE) & ~np.isin(x, DOORS))
    number = np.where(wall, -1, np.cumsum(~wall).reshape(wall.shape) - 1)
    states = np.argwhere(~wall)
    n, m = len(states), len(MOVES)
    there = number[tuple((states[:, None] + MOVES).T)].T  # (n, m)
    legal = there >= 0
    there = np.where(legal, there, np.arange(n)[:, None])

    chosen = sparse.csr_array((np.ones(n * m), (np.arange(n * m), there.ravel())), shape=(n * m, n))
    drift = sparse.csr_array(
        ((legal / legal.sum(axis=1, keepdims=True)).ravel(), (np.repeat(np.arange(n), m), there.ravel())), shape=(n, n)
    )
    transitions = (chosen @ (noise * drift + (1 - noise) * sparse.eye_array(n))).tocsr()

    def reward(t: int, played: np.ndarray) -> np.ndarray:
        mass = played.sum(axis=1) if t > 0 else np.full(n, 1 / SIZE**2)
        return np.repeat(-np.log(mass + EPSILON)[:, None], m, axis=1)

    start = (states == 1).all(axis=1).astype(float)
    game = FiniteGame(states, MOVES, start, HORIZON, lambda t, played: transitions, reward, np.zeros_like)
    return game, np.tile(legal / legal.sum(axis=1, keepdims=True), (HORIZON, 1, 1))
