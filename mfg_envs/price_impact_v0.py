"""PriceImpact, version 0, as PettingZoo and Gymnasium environments. See `mfg_envs.games.PriceImpact`."""

from mfg_envs.envs.factory import environments
from mfg_envs.games import PriceImpact

env, raw_env, parallel_env, vector_env = environments(PriceImpact, name="price_impact_v0")

__all__ = ["env", "parallel_env", "raw_env", "vector_env"]
