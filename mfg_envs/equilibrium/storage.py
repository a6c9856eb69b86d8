"""Learnt equilibria in files: `equilibrium.pt`, which loads without the solver that wrote it and runs no code.

The file is a dict that `torch.load(weights_only=True)` reads: a format version, the game's name and constants, and
constructor arguments and state of the average policy and of the flow. PyTorch is imported when a file is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mfg_envs.equilibrium.results import Equilibrium
from mfg_envs.games import GAMES, Game

if TYPE_CHECKING:
    from mfg_envs.mean_field import Flow
    from mfg_envs.policies import AveragePolicy

FORMAT = "mfg-envs equilibrium"
FORMAT_VERSION = 1


def save_equilibrium(
    path: str | os.PathLike[str], game: Game, policy: AveragePolicy, flow: Flow, value: float, exploitability: float
) -> None:
    """Write a learnt equilibrium to a file; an existing one is replaced, whole or not at all.

    Args:
        path: of the file.
        game: one of the package's games.
        policy, flow: what was learnt.
        value, exploitability: the policy's return in its crowd, and what the oracle says.

    Raises:
        ValueError: for a game that `load_equilibrium` could not make again.
    """
    import torch

    if GAMES.get(type(game).__name__) is not type(game):
        raise ValueError(f"{type(game).__name__} is none of the package's games {tuple(GAMES)}")

    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "game": type(game).__name__,
        "constants": game.constants,
        "policy": {"arguments": policy.arguments, "state": _on_cpu(policy.state_dict())},
        "flow": {"arguments": flow.arguments, "state": _on_cpu(flow.state_dict())},
        "value": float(value),
        "exploitability": float(exploitability),
    }
    partial = f"{os.fspath(path)}.partial"
    torch.save(content, partial)
    os.replace(partial, path)


def load_equilibrium(path: str | os.PathLike[str]) -> Equilibrium:
    """The equilibrium in a file that a solver wrote: average policy, flow, return and exploitability.

    Its attribute `game` is the game that it is an equilibrium of.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if PyTorch or zuko is not installed.
        ValueError: if the file is truncated, of another format or version, or of a game that is not in this package.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    try:
        import torch

        from mfg_envs.mean_field.flow import Flow
        from mfg_envs.policies import AveragePolicy
    except ModuleNotFoundError as error:
        raise ImportError("load_equilibrium needs torch and zuko: pip install 'mfg-envs[solvers]'") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise ValueError(f"{os.fspath(path)!r} is truncated or no equilibrium file") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)!r} is no equilibrium file of mfg-envs")
    if content.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has format version {content.get('version')!r}, this package reads {FORMAT_VERSION}"
        )
    try:
        game = GAMES[content["game"]](**content["constants"])
        policy = AveragePolicy(**content["policy"]["arguments"])
        policy.load_state_dict(content["policy"]["state"])
        flow = Flow(**content["flow"]["arguments"])
        flow.load_state_dict(content["flow"]["state"])
        value, exploitability = float(content["value"]), float(content["exploitability"])
        for part in (policy, flow):
            if (part.dim, part.action_dim, part.horizon) != (game.dim, game.action_dim, game.horizon):
                raise ValueError(f"the {type(part).__name__} is not of this game")
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged, or of a game that this package does not have") from error
    return Equilibrium(policy.eval(), flow.eval(), value, exploitability, game=game)


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.cpu() for name, tensor in state.items()}
