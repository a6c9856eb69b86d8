"""The crowd: mu_t as something that can be sampled, evaluated and averaged.

`Flow` needs PyTorch and zuko (the extra `solvers`) and is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from mfg_envs.mean_field.base import Distribution, MeanField
from mfg_envs.mean_field.distance import wasserstein
from mfg_envs.mean_field.empirical import Empirical
from mfg_envs.mean_field.gaussian import Gaussian
from mfg_envs.mean_field.grid import Grid

if TYPE_CHECKING:
    from mfg_envs.mean_field.flow import Flow

__all__ = ["Distribution", "Empirical", "Flow", "Gaussian", "Grid", "MeanField", "wasserstein"]


def __getattr__(name: str) -> Any:
    if name == "Flow":
        try:
            from mfg_envs.mean_field.flow import Flow
        except ModuleNotFoundError as error:
            raise ImportError("Flow needs torch and zuko: pip install 'mfg-envs[solvers]'") from error
        return Flow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
