"""The PettingZoo shell: dicts of agents over the array core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import countOf, itemgetter
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from mfg_envs.envs.core import Crowd, action_space, observation_space, state_space
from mfg_envs.envs.rendering import Rendering
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField


class CrowdParallelEnv(ParallelEnv[str, np.ndarray, np.ndarray]):
    """Any game as a PettingZoo `ParallelEnv`: agent_0, ..., agent_{N-1}, all alike.

    | | |
    |---|---|
    | Observation | `[x, t/T]`, float32 (d+1,): time is part of the state, as the horizon is finite |
    | Action | float32 (k,) in the game's box; actions outside are projected by the game |
    | Reward | the game's; the last one includes the terminal reward |
    | End | every agent terminates at T. A finite horizon belongs to the game, so nobody is truncated |

    With `mean_field=None` this is the N-player game: mu_t is the agents themselves. With a mean field it holds N
    representative agents, independent of each other, in a frozen crowd: the best-response problem.

    `reset(seed=s)` makes the whole episode reproducible to the bit; `reset(options={"initial_state": x})` starts from
    the states x (N, d). `state()` is the crowd, (N, d) float32.

    Args:
        game: the game.
        num_agents: N.
        mean_field: the frozen crowd, None for each other's company.
        render_mode: "human" for a window that follows every reset and step, "rgb_array" for pictures; see `render`.
        bandwidth: of the density of each other's company; None for the rule in docs/density.md.
        name: shown by `str(env)`.
    """

    metadata: dict[str, Any] = {
        "name": "crowd_v0",
        "render_modes": ["human", "rgb_array"],
        "render_fps": 30,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        game: Game,
        num_agents: int = 100,
        mean_field: MeanField | None = None,
        render_mode: str | None = None,
        bandwidth: float | None = None,
        name: str | None = None,
    ) -> None:
        self.rendering, self.render_mode = Rendering(render_mode, self.metadata), render_mode
        self.crowd = Crowd(game, num_agents, mean_field, bandwidth)
        if name is not None:
            self.metadata = {**self.metadata, "name": name}
        self.possible_agents = [f"agent_{i}" for i in range(num_agents)]
        self.agents: list[str] = []
        self._flags = {flag: dict.fromkeys(self.possible_agents, flag) for flag in (False, True)}
        self._pick: Callable[[Any], Any] = itemgetter(*self.possible_agents)  # the fastest way to values by key
        self.state_space = state_space(game, num_agents)
        self._observation_space = observation_space(game)
        self._action_space = action_space(game)
        self._rng: np.random.Generator | None = None

    @property
    def game(self) -> Game:
        """The game that is played."""
        return self.crowd.game

    def observation_space(self, agent: str) -> spaces.Box:
        """The box of [x, t/T]: one object, shared by all agents."""
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Box:
        """The box of actions: one object, shared by all agents."""
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start an episode: observations and empty infos of all agents.

        Raises:
            ValueError: if `options["initial_state"]` is not (N, d) states of the game; nothing is changed then.
        """
        rng = np.random.default_rng(seed) if seed is not None or self._rng is None else self._rng
        self.crowd.reset(rng, (options or {}).get("initial_state"))
        self._rng = rng
        self.agents = self.possible_agents[:]
        self.rendering.follow(self.crowd)
        return self._observe(), self._infos()

    def step(
        self, actions: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Everybody acts.

        Raises:
            ValueError: if an action is missing, misshapen or NaN, or an agent unknown; nothing is changed then.
            ResetNeeded: before `reset` and after the end.
        """
        agents = self.possible_agents
        rewards = self.crowd.step(self._stack(actions) if self.agents else np.empty(0))
        done = self.crowd.done
        if done:
            self.agents = []
        self.rendering.follow(self.crowd)
        return (
            self._observe(),
            dict(zip(agents, rewards.tolist(), strict=True)),
            self._flags[done].copy(),
            self._flags[False].copy(),
            self._infos(),
        )

    def state(self) -> np.ndarray:
        """The crowd: states of all agents, (N, d) float32."""
        return self.crowd.observations()[:, :-1].copy()

    def render(self) -> np.ndarray | None:
        """Draw the crowd: a picture (720, 720, 3) uint8, or None after showing it in a window; see docs/viewer.md.

        Raises:
            ImportError: if pygame-ce is not installed (the extra `render`).
            ResetNeeded: before the first reset.
        """
        return self.rendering.render(self.crowd)

    def close(self) -> None:
        """Close the window, if there is one."""
        self.rendering.close()

    def _observe(self) -> dict[str, np.ndarray]:
        return dict(zip(self.possible_agents, self.crowd.observations(), strict=True))

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {agent: {} for agent in self.possible_agents}

    def _stack(self, actions: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions by agent to an array (N, k). Concatenating is the fastest way in; what is wrong is searched after."""
        k = self.game.action_dim
        try:
            rows = self._pick(actions)
            if len(self.possible_agents) == 1:
                rows = (rows,)  # a single value comes bare
            if len(actions) == len(rows) and countOf(map(len, rows), k) == len(rows):
                flat = np.concatenate(rows)
                if flat.ndim == 1 and flat.dtype.kind in "fiu":
                    return flat.reshape(-1, k)
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError):
            pass
        raise ValueError(self._complaint(actions))

    def _complaint(self, actions: Mapping[str, np.ndarray]) -> str:
        """What is wrong with these actions, and whose it is."""
        if not isinstance(actions, Mapping):
            return f"actions must be a dict from agents to arrays, got {type(actions).__name__}"
        missing = [agent for agent in self.possible_agents if agent not in actions]
        if missing:
            return f"the action of {missing[0]} is missing ({len(missing)} missing in all)"
        unknown = [agent for agent in actions if agent not in self._flags[False]]
        if unknown:
            return f"{unknown[0]!r} is no agent of this environment"
        for agent in self.possible_agents:
            try:
                action = np.asarray(actions[agent])
            except (RuntimeError, ValueError):  # a tensor with gradient; ragged
                action = np.asarray(None)
            if action.dtype.kind not in "fiu":
                return f"the action of {agent} is no array of numbers: {actions[agent]!r}"
            if action.shape != (self.game.action_dim,):
                return f"the action of {agent} must have shape ({self.game.action_dim},), got {action.shape}"
        return "actions cannot be stacked"
