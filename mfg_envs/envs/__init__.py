"""The API: one PettingZoo `ParallelEnv` and one Gymnasium `VectorEnv` over any game, on one shared array core."""

from mfg_envs.envs.core import Crowd, Policy, Trajectories, simulate
from mfg_envs.envs.parallel_env import CrowdParallelEnv
from mfg_envs.envs.vector_env import CrowdVectorEnv

__all__ = ["Crowd", "CrowdParallelEnv", "CrowdVectorEnv", "Policy", "Trajectories", "simulate"]
