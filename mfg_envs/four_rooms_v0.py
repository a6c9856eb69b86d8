"""FourRooms, version 0, as PettingZoo and Gymnasium environments. See `mfg_envs.games.FourRooms`."""

from mfg_envs.envs.factory import environments
from mfg_envs.games import FourRooms

env, raw_env, parallel_env, vector_env = environments(FourRooms, name="four_rooms_v0")

__all__ = ["env", "parallel_env", "raw_env", "vector_env"]
