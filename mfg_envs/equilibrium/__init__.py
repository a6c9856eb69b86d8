"""The truth: equilibria, best responses, exploitability, and equilibria kept in files."""

from mfg_envs.equilibrium.grid import Mixture
from mfg_envs.equilibrium.n_player import n_player_gap
from mfg_envs.equilibrium.oracle import best_response, exploitability, solve
from mfg_envs.equilibrium.results import AffinePolicy, BestResponse, Equilibrium, Exploitability, NPlayerGap
from mfg_envs.equilibrium.storage import load_equilibrium, save_equilibrium

__all__ = [
    "AffinePolicy",
    "BestResponse",
    "Equilibrium",
    "Exploitability",
    "Mixture",
    "NPlayerGap",
    "best_response",
    "exploitability",
    "load_equilibrium",
    "n_player_gap",
    "save_equilibrium",
    "solve",
]
