"""The array core: N agents of any game, in each other's crowd or in a frozen one, with all work done on arrays.

Everything that moves agents stands on it: the PettingZoo and Gymnasium shells, the oracles, the solvers' logging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from mfg_envs.games import Game
from mfg_envs.games.base import as_floats
from mfg_envs.mean_field import Distribution, Empirical, MeanField
from mfg_envs.mean_field.empirical import EmpiricalPath

Policy = Callable[[int, np.ndarray], np.ndarray]  # policy(t, x (n, d)) -> a (n, k), float64


class Played(NamedTuple):
    """One step: the time t, states x (N, d), actions a (N, k) as given, the crowd mu, and the rewards (N,)."""

    t: int
    x: np.ndarray
    a: np.ndarray
    mu: Distribution
    rewards: np.ndarray


class Crowd:
    """N agents of one game at one time. States are float64; observations and `state()` of the shells are float32.

    Args:
        game: the game.
        num_agents: N.
        mean_field: the frozen crowd that the agents live in, each on its own; None for each other's company.
        bandwidth: of the density of each other's company; None for the rule of `KernelDensity`.

    Raises:
        ValueError: if `num_agents` is not a positive integer, or if the mean field is not of this game's horizon.
    """

    def __init__(
        self, game: Game, num_agents: int, mean_field: MeanField | None = None, bandwidth: float | None = None
    ) -> None:
        if isinstance(num_agents, bool) or not isinstance(num_agents, (int, np.integer)) or num_agents < 1:
            raise ValueError(f"num_agents must be a positive integer, got {num_agents!r}")
        if mean_field is not None:
            check_mean_field(game, mean_field)
        self.game = game
        self.num_agents = int(num_agents)
        self.mean_field = mean_field
        self.bandwidth = bandwidth
        self._reads_actions = "mean_action" in game.reward_reads | game.dynamics_reads
        self.t: int | None = None  # None until the first reset
        self.played: Played | None = None  # the step that led here; None at t = 0
        self.x: np.ndarray
        self.rng: np.random.Generator

    @property
    def done(self) -> bool:
        """Whether the horizon is reached."""
        return self.t == self.game.horizon

    def reset(self, rng: np.random.Generator, initial_state: np.ndarray | None = None) -> None:
        """Go to t = 0: `rng` is kept for the episode; the states are drawn from it unless given, (N, d).

        Raises:
            ValueError: if given states are misshapen, NaN, or outside the game's state space; nothing is changed then.
        """
        size = (self.num_agents, self.game.dim)
        if initial_state is None:
            x = self.game.initial_state(rng.standard_normal(size))
        else:
            x = np.array(as_floats(initial_state))
            if x.shape != size:
                raise ValueError(f"initial_state must be an array of numbers of shape {size}, got shape {x.shape}")
            outside = np.flatnonzero(~self.game.contains(x))
            if len(outside):
                i = outside[0]
                raise ValueError(f"initial_state of agent_{i} is not in the state space of the game: {x[i]}")
        self.rng, self.t, self.x, self.played = rng, 0, x, None

    def distribution(self, a: np.ndarray | None = None) -> Distribution:
        """mu_t: the frozen crowd's, or the agents' own; their actions `a` (N, k) count if the game reads their mean."""
        assert self.t is not None
        if self.mean_field is not None:
            return self.mean_field.at(self.t)
        a = self.game.project_action(a) if a is not None and self._reads_actions else None
        return Empirical(self.x, a, self.game.floor, self.bandwidth).leave_one_out()

    def step(self, a: np.ndarray) -> np.ndarray:
        """Everybody acts: a (N, k) -> rewards (N,), the last ones with the terminal reward.

        Raises:
            ResetNeeded: before the first reset and at T.
            ValueError: if the actions are misshapen or NaN; nothing is changed then.
        """
        if self.t is None or self.done:
            raise ResetNeeded("call reset() first" if self.t is None else "the horizon is reached: call reset()")
        game, t, size = self.game, self.t, (self.num_agents, self.game.action_dim)
        a = as_floats(a)
        if a.shape != size:
            raise ValueError(f"actions must be an array of numbers of shape {size}, got shape {a.shape}")
        if np.isnan(a).any():
            i = np.flatnonzero(np.isnan(a).any(axis=1))[0]
            raise ValueError(f"the action of agent_{i} is NaN: {a[i]}")
        mu = self.distribution(a)
        x, rewards = self.x, game.reward(t, self.x, a, mu)
        self.x = game.step(t, x, a, mu, self.rng.standard_normal(x.shape))
        self.t = t + 1
        if self.done:
            rewards = rewards + game.terminal_reward(self.x, self.distribution())
        self.played = Played(t, x, a, mu, rewards)
        return rewards

    def observations(self) -> np.ndarray:
        """[x, t/T] of every agent: (N, d+1) float32.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self.t is None:
            raise ResetNeeded("call reset() first")
        observations = np.empty((self.num_agents, self.game.dim + 1), dtype=np.float32)
        observations[:, :-1] = self.x
        observations[:, -1] = self.t / self.game.horizon
        return observations


def check_mean_field(game: Game, mean_field: MeanField) -> None:
    """Raise a ValueError unless the mean field is one, of the game's horizon and dimension, and with its walls."""
    if not hasattr(mean_field, "at"):
        raise ValueError(
            f"mean_field must be a MeanField, a distribution for each t, got {type(mean_field).__name__}; "
            "trajectories make one: Empirical.from_trajectories"
        )
    if "log_density" in game.reward_reads and getattr(mean_field, "floor", game.floor) != game.floor:
        raise ValueError("the mean field's floor is not the game's: give floor=game.floor, or its density leaks")
    for name in ("horizon", "dim"):
        theirs, ours = getattr(mean_field, name), getattr(game, name)
        if theirs != ours:
            raise ValueError(f"the mean field has {name} {theirs}, the game has {ours}")


def observation_space(game: Game) -> spaces.Box:
    """Box of [x, t/T], (d+1,) float32, finite."""
    return _box(np.append(game.state_low, 0.0), np.append(game.state_high, 1.0))


def action_space(game: Game) -> spaces.Box:
    """Box of actions, (k,) float32."""
    return _box(game.action_low, game.action_high)


def state_space(game: Game, num_agents: int) -> spaces.Box:
    """Box of all agents' states, (N, d) float32, finite."""
    return _box(np.tile(game.state_low, (num_agents, 1)), np.tile(game.state_high, (num_agents, 1)))


def _box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What N agents did.

    Attributes:
        states: (T+1, N, d).
        actions: (T, N, k), projected.
        rewards: (T, N); the last one includes the terminal reward.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def mean_field(self, game: Game, bandwidth: float | None = None) -> EmpiricalPath:
        """The crowd of those who did it, on the game's floor, frozen."""
        return Empirical.from_trajectories(self.states, self.actions, game.floor, bandwidth)

    @property
    def returns(self) -> np.ndarray:
        """Sum of rewards of each agent, (N,)."""
        return self.rewards.sum(axis=0)


def simulate(
    game: Game,
    policy: Policy,
    mean_field: MeanField | None = None,
    num_agents: int = 1000,
    seed: int | None = None,
    antithetic: bool = False,
    bandwidth: float | None = None,
) -> Trajectories:
    """Let `num_agents` play `policy` for one episode, in each other's crowd or in a frozen mean field.

    The agents' noise depends on `seed` alone, not on what the policy draws: two policies played with one seed meet the
    same noise. A policy with a method `reset(n, rng)` is reset before t = 0 with a generator of its own.

    Args:
        game: the game.
        policy: a callable `policy(t, x)`: t an int, x (n, d) float64 -> actions (n, k).
        mean_field: the frozen crowd; None for each other's company, which is the N-player game.
        num_agents: N; even if `antithetic`.
        seed: of the noise; None draws a fresh one.
        antithetic: give agent i + N/2 the mirrored noise of agent i. The mean state under a linear policy is then
            exact, and means over agents are less noisy in general.
        bandwidth: of the density of each other's company; None for the rule in docs/density.md.

    Raises:
        ValueError: if the policy returns NaN or another shape, or `num_agents` does not fit.
    """
    rng = np.random.default_rng(seed)
    policy_rng = rng.spawn(1)[0]
    if antithetic:
        if num_agents % 2:
            raise ValueError(f"num_agents must be even with antithetic noise, got {num_agents}")
        rng = _Antithetic(rng.bit_generator)
    crowd = Crowd(game, num_agents, mean_field, bandwidth)
    crowd.reset(rng)
    if hasattr(policy, "reset"):
        policy.reset(num_agents, policy_rng)
    states = np.empty((game.horizon + 1, num_agents, game.dim))
    actions = np.empty((game.horizon, num_agents, game.action_dim))
    rewards = np.empty((game.horizon, num_agents))
    states[0] = crowd.x
    for t in range(game.horizon):
        a = as_floats(policy(t, crowd.x.copy()))
        rewards[t] = crowd.step(a)
        actions[t] = game.project_action(a)
        states[t + 1] = crowd.x
    return Trajectories(states, actions, rewards)


class _Antithetic(np.random.Generator):
    """Standard normal draws of which the second half of the rows mirrors the first."""

    def standard_normal(self, size: tuple[int, ...]) -> np.ndarray:  # type: ignore[override]
        half = super().standard_normal((size[0] // 2, *size[1:]))
        return np.concatenate([half, -half])
