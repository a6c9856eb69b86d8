"""BeachBar, version 0, as PettingZoo and Gymnasium environments. See `mfg_envs.games.BeachBar`."""

from mfg_envs.envs.factory import environments
from mfg_envs.games import BeachBar

env, raw_env, parallel_env, vector_env = environments(BeachBar, name="beach_bar_v0")

__all__ = ["env", "parallel_env", "raw_env", "vector_env"]
