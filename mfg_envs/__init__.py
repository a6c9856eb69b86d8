"""mfg-envs: continuous mean field games behind PettingZoo and Gymnasium, with oracles.

Importing this package registers every game: `pettingzoo.make("parallel", "mfg_envs/lq-v0")` and
`gymnasium.make_vec("mfg_envs/lq-v0", num_envs=1000)`. It loads neither PyTorch nor pygame nor matplotlib.
"""

from importlib.metadata import version

import gymnasium
import pettingzoo

from mfg_envs.equilibrium import load_equilibrium

__version__ = version("mfg-envs")

ENVIRONMENTS = {  # id -> module
    "mfg_envs/beach_bar-v0": "mfg_envs.beach_bar_v0",
    "mfg_envs/four_rooms-v0": "mfg_envs.four_rooms_v0",
    "mfg_envs/lq-v0": "mfg_envs.lq_v0",
    "mfg_envs/price_impact-v0": "mfg_envs.price_impact_v0",
}

for _id, _module in ENVIRONMENTS.items():
    if _id not in gymnasium.registry:  # registering again, on a reload, would warn
        gymnasium.register(_id, vector_entry_point=f"{_module}:vector_env")
        pettingzoo.register("parallel", _id, f"{_module}:parallel_env")
        pettingzoo.register("aec", _id, f"{_module}:env")

__all__ = ["ENVIRONMENTS", "__version__", "load_equilibrium"]
