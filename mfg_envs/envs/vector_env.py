"""The Gymnasium shell: arrays in and arrays out over the array core."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from mfg_envs.envs.core import Crowd, action_space, observation_space
from mfg_envs.envs.rendering import Rendering
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField


class CrowdVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Any game as a Gymnasium `VectorEnv`: one sub-environment an agent, one clock for all.

    With a mean field, the agents are representative ones in a frozen crowd: the problem that a single-agent algorithm
    solves for a best response. With `mean_field=None` they are each other's crowd, as in `CrowdParallelEnv`.

    Observations, actions and rewards are those of `CrowdParallelEnv` as arrays: (N, d+1) float32, (N, k), (N,). All
    agents terminate at T; the next `step` starts a new episode and ignores its actions (`AutoresetMode.NEXT_STEP`).
    An explicit `reset()` at T is as good.

    Args:
        game: the game.
        num_envs: N.
        mean_field: the frozen crowd, None for each other's company.
        render_mode: "human" for a window that follows every reset and step, "rgb_array" for pictures; see `render`.
        bandwidth: of the density of each other's company; None for the rule in docs/density.md.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["human", "rgb_array"],
        "render_fps": 30,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        game: Game,
        num_envs: int = 1,
        mean_field: MeanField | None = None,
        render_mode: str | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.rendering, self.render_mode = Rendering(render_mode, self.metadata), render_mode
        self.crowd = Crowd(game, num_envs, mean_field, bandwidth)
        self.num_envs = self.crowd.num_agents
        self.single_observation_space = observation_space(game)
        self.single_action_space = action_space(game)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    @property
    def game(self) -> Game:
        """The game that is played."""
        return self.crowd.game

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode: observations (N, d+1) and an empty info.

        Raises:
            ValueError: if `options["initial_state"]` is not (N, d) states of the game; nothing is changed then.
        """
        rng = self.np_random if seed is None else seeding.np_random(seed)[0]
        self.crowd.reset(rng, (options or {}).get("initial_state"))
        if seed is not None:
            self._np_random, self._np_random_seed = rng, seed
        self.rendering.follow(self.crowd)
        return self.crowd.observations(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Everybody acts, (N, k); after the end, everybody starts anew and the actions are ignored.

        Raises:
            ValueError: if the actions are misshapen or NaN; nothing is changed then.
            ResetNeeded: before the first `reset`.
        """
        if self.crowd.done:
            observations, info = self.reset()
            return observations, np.zeros(self.num_envs), self._flags(False), self._flags(False), info
        rewards = self.crowd.step(actions)
        self.rendering.follow(self.crowd)
        return self.crowd.observations(), rewards, self._flags(self.crowd.done), self._flags(False), {}

    def render(self) -> tuple[np.ndarray] | None:
        """Draw all agents in one picture: a tuple of one array (720, 720, 3) uint8, or None after showing it.

        Raises:
            ImportError: if pygame-ce is not installed (the extra `render`).
            ResetNeeded: before the first reset.
        """
        picture = self.rendering.render(self.crowd)
        return None if picture is None else (picture,)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window, if there is one."""
        self.rendering.close()

    def _flags(self, value: bool) -> np.ndarray:
        return np.full(self.num_envs, value)
