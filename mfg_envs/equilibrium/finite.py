"""Finite mean field games: n states, m actions, T decisions, in the form in which other libraries know them. Ours.

`finite_game` makes one of any game of dimension 1 or 2: the cells of the grid oracle are its states, the grid's actions
its actions, and the oracle's operator its transitions. Nothing is refined between actions, so all that is computed here
is exact for the finite game, to rounding, and comparable to the last digit with what another program makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from mfg_envs.equilibrium.grid import Model
from mfg_envs.games import Game
from mfg_envs.mean_field.grid import GridDistribution

PROBABILITY_ERROR = 1e-9


class Crowd(NamedTuple):
    """What a crowd does: who is where, and who does what there.

    Attributes:
        masses: (T+1, n), of the states at each t.
        played: (T, n, m), of the pairs of states and actions at each t; the sum over actions is `masses[:-1]`.
    """

    masses: np.ndarray
    played: np.ndarray


@dataclass(frozen=True, eq=False)
class FiniteGame:
    """A mean field game with n states, m actions and T decisions; policies are arrays (T, n, m) of probabilities.

    Attributes:
        states: (n, d), their coordinates.
        actions: (m, k), likewise.
        initial: (n,), mu_0.
        horizon: T.
        transition: `transition(t, played)`: the probabilities of the next states when the crowd plays `played` (n, m),
            a sparse array or a `scipy.sparse.linalg.LinearOperator` of shape (n m, n); row s m + a belongs to state s
            and action a.
        reward: `reward(t, played)`: the rewards (n, m) at t.
        terminal_reward: `terminal_reward(mass)`: the rewards (n,) at T, where the crowd is `mass` (n,).
    """

    states: np.ndarray
    actions: np.ndarray
    initial: np.ndarray
    horizon: int
    transition: Callable[[int, np.ndarray], sparse.sparray | LinearOperator]
    reward: Callable[[int, np.ndarray], np.ndarray]
    terminal_reward: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, n, m), the shape of a policy."""
        return self.horizon, len(self.states), len(self.actions)

    def uniform(self) -> np.ndarray:
        """The policy that plays all actions alike, (T, n, m)."""
        return np.full(self.shape, 1 / len(self.actions))

    def flow(self, policy: np.ndarray, crowd: Crowd | None = None) -> Crowd:
        """The crowd of those who play a policy: in a given crowd, or in each other's.

        Raises:
            ValueError: if the policy is misshapen, or no probabilities.
        """
        self._check(policy)
        masses, played = np.empty((self.horizon + 1, len(self.states))), np.empty(self.shape)
        masses[0] = self.initial
        for t in range(self.horizon):
            played[t] = masses[t][:, None] * policy[t]
            transition = self.transition(t, (played if crowd is None else crowd.played)[t])
            masses[t + 1] = transition.T @ played[t].ravel()
        return Crowd(masses, played)

    def value(self, policy: np.ndarray, crowd: Crowd) -> float:
        """Expected return of a policy in a crowd.

        Raises:
            ValueError: if the policy is misshapen, or no probabilities.
        """
        self._check(policy)
        values = self.terminal_reward(crowd.masses[-1])
        for t in reversed(range(self.horizon)):
            values = (policy[t] * self._action_values(t, values, crowd)).sum(axis=1)
        return float(self.initial @ values)

    def earned(self, crowd: Crowd) -> float:
        """What the crowd itself earns on average: the return of its policy in it."""
        rewards = sum(float((played * self.reward(t, played)).sum()) for t, played in enumerate(crowd.played))
        return rewards + float(crowd.masses[-1] @ self.terminal_reward(crowd.masses[-1]))

    def respond(self, crowd: Crowd) -> tuple[np.ndarray, float]:
        """A best policy against a crowd, of one action in each state, and its expected return."""
        policy = np.zeros(self.shape)
        values = self.terminal_reward(crowd.masses[-1])
        for t in reversed(range(self.horizon)):
            of_actions = self._action_values(t, values, crowd)
            best = of_actions.argmax(axis=1)[:, None]
            np.put_along_axis(policy[t], best, 1.0, axis=1)
            values = np.take_along_axis(of_actions, best, axis=1)[:, 0]
        return policy, float(self.initial @ values)

    def exploitability(self, policy: np.ndarray) -> float:
        """How much a best response gains over a policy in the crowd of those who play it; not negative, to rounding.

        Raises:
            ValueError: if the policy is misshapen, or no probabilities.
        """
        crowd = self.flow(policy)
        return self.respond(crowd)[1] - self.earned(crowd)

    def fictitious_play(self, iterations: int) -> tuple[np.ndarray, Crowd]:
        """The average of as many best responses, each to the crowd of the average so far, and that average's crowd.

        The first best response, to the crowd of the uniform policy, is all of the average; number k + 1 joins it with
        the weight 2/(k+2). Those who are in a state play the average of what those there played.

        Raises:
            ValueError: if `iterations` is not a positive integer.
        """
        if isinstance(iterations, bool) or not isinstance(iterations, (int, np.integer)) or iterations < 1:
            raise ValueError(f"iterations must be a positive integer, got {iterations!r}")
        policy = self.uniform()
        crowd = self.flow(policy)
        for k in range(iterations):
            best, _ = self.respond(crowd)
            rate = 2 / (k + 2)
            played = (1 - rate) * crowd.played + rate * self.flow(best, crowd).played
            mass = played.sum(axis=2, keepdims=True)
            policy = np.divide(played, mass, out=self.uniform(), where=mass > 0)
            crowd = self.flow(policy)
        return policy, crowd

    def _action_values(self, t: int, ahead: np.ndarray, crowd: Crowd) -> np.ndarray:
        """What each action earns from t on, (n, m), if the next state is worth `ahead` (n,)."""
        played = crowd.played[t]
        return self.reward(t, played) + (self.transition(t, played) @ ahead).reshape(played.shape)

    def _check(self, policy: np.ndarray) -> None:
        if np.shape(policy) != self.shape:
            raise ValueError(f"policy must have shape (T, n, m) = {self.shape}, got {np.shape(policy)}")
        if not (np.min(policy) >= 0 and np.abs(np.sum(policy, axis=2) - 1).max() <= PROBABILITY_ERROR):
            raise ValueError(
                "policy must be probabilities of actions: not negative, of sum one in each state at each t"
            )


def finite_game(
    game: Game, cells: int | None = None, actions: int | None = None, bounds: Any | None = None
) -> FiniteGame:
    """A game on the cells and with the actions of the grid oracle; see `mfg_envs.equilibrium.grid.Model`.

    Its transitions are operators, not matrices: they are kept as the product that the oracle has of them, points that
    the noise leads to and weights that an action gives these. What is slow is to set one up, at the first use; it is
    done twice, for even and for odd t, if the game's step depends neither on t nor on the crowd.

    Args:
        game: a game of dimension 1 or 2.
        cells: across the longest side; None for the default.
        actions: across the action box, projected; None for the default.
        bounds: (low, high) of the grid for a game without a floor; steps that lead beyond end at the border.

    Raises:
        ValueError: if the game has more dimensions, or has no floor and there are no bounds, or a number is too small.
    """
    model = Model(game, cells, actions, bounds)
    mesh, n, m = model.mesh, len(model.mesh), len(model.actions)
    tiled = np.repeat(model.actions, n, axis=0)

    def distribution(played: np.ndarray) -> GridDistribution:
        return GridDistribution(mesh, played.sum(axis=1), played.sum(axis=0) @ model.actions)

    def transition(t: int, played: np.ndarray) -> LinearOperator:
        operator = model.transition(t, distribution(played))
        return LinearOperator(
            (n * m, n),
            dtype=np.float64,
            matvec=lambda values: operator.of_grid(operator.ahead(values.ravel())).T.ravel(),
            rmatvec=lambda played: operator.push_grid(played.reshape(n, m)),
        )

    def reward(t: int, played: np.ndarray) -> np.ndarray:
        return model.reward(t, tiled, distribution(played)).reshape(m, n).T

    def terminal_reward(mass: np.ndarray) -> np.ndarray:
        return model.terminal_reward(GridDistribution(mesh, mass))

    return FiniteGame(mesh.centres, model.actions, model.initial, game.horizon, transition, reward, terminal_reward)
