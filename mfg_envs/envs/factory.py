"""From a game's class to the four functions that an environment's module offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pettingzoo import AECEnv
from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from mfg_envs.envs.parallel_env import CrowdParallelEnv
from mfg_envs.envs.vector_env import CrowdVectorEnv
from mfg_envs.games import Game
from mfg_envs.mean_field import MeanField

MakeAEC = Callable[..., AECEnv]
MakeParallel = Callable[..., CrowdParallelEnv]
MakeVector = Callable[..., CrowdVectorEnv]


def environments(game_class: type[Game], name: str) -> tuple[MakeAEC, MakeAEC, MakeParallel, MakeVector]:
    """`env`, `raw_env`, `parallel_env` and `vector_env` of a game, in the manner of PettingZoo's modules.

    Each takes the number of agents, the mean field, the render mode, the bandwidth, and the game's constants by name.
    """

    def parallel_env(
        num_agents: int = 100,
        mean_field: MeanField | None = None,
        render_mode: str | None = None,
        bandwidth: float | None = None,
        **constants: Any,
    ) -> CrowdParallelEnv:
        return CrowdParallelEnv(game_class(**constants), num_agents, mean_field, render_mode, bandwidth, name)

    def raw_env(*args: Any, **kwargs: Any) -> AECEnv:
        return parallel_to_aec(parallel_env(*args, **kwargs))

    def env(*args: Any, **kwargs: Any) -> AECEnv:
        return OrderEnforcingWrapper(raw_env(*args, **kwargs))

    def vector_env(
        num_envs: int = 1,
        mean_field: MeanField | None = None,
        render_mode: str | None = None,
        bandwidth: float | None = None,
        **constants: Any,
    ) -> CrowdVectorEnv:
        return CrowdVectorEnv(game_class(**constants), num_envs, mean_field, render_mode, bandwidth)

    what = f"{game_class.__name__} (`{name}`)"
    tail = (
        "Takes `{count}`, `mean_field=None`, `render_mode=None`, `bandwidth=None` (of the crowd's density), "
        f"and the constants of `{game_class.__name__}` by name."
    )
    for function, kind, count in (
        (env, "AEC environment, with PettingZoo's order checks", "num_agents=100"),
        (raw_env, "AEC environment", "num_agents=100"),
        (parallel_env, "`CrowdParallelEnv`", "num_agents=100"),
        (vector_env, "`CrowdVectorEnv`", "num_envs=1"),
    ):
        function.__doc__ = f"{what} as {kind}. {tail.format(count=count)}"
    return env, raw_env, parallel_env, vector_env
