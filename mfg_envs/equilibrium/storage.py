"""Learnt equilibria in files: `equilibrium.pt`, which loads without the solver that wrote it and runs no code.

The file is a dict that `torch.load(weights_only=True)` reads: a format version, the game's name and constants, the
policy and the mean field. Of a network it has constructor arguments and state; of a mixture, its networks and weights;
of a crowd of trajectories, states and actions. PyTorch is imported when a file is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mfg_envs.equilibrium.grid import Mixture
from mfg_envs.equilibrium.results import Equilibrium
from mfg_envs.games import GAMES, Game
from mfg_envs.mean_field.empirical import Empirical, EmpiricalPath

if TYPE_CHECKING:
    from mfg_envs.mean_field import Flow
    from mfg_envs.policies import AveragePolicy, DeterministicPolicy

FORMAT = "mfg-envs equilibrium"
FORMAT_VERSION = 2


def save_equilibrium(
    path: str | os.PathLike[str],
    game: Game,
    policy: AveragePolicy | DeterministicPolicy | Mixture,
    mean_field: Flow | EmpiricalPath,
    value: float,
    exploitability: float,
) -> None:
    """Write a learnt equilibrium to a file; an existing one is replaced, whole or not at all.

    Args:
        path: of the file.
        game: one of the package's games.
        policy: what was learnt: one network, or a mixture of such.
        mean_field: its crowd: a flow, or trajectories on the game's floor.
        value, exploitability: the policy's return in its crowd, and what the oracle says.

    Raises:
        ValueError: for a game that `load_equilibrium` could not make again, or a mean field on another floor.
    """
    import torch

    if GAMES.get(type(game).__name__) is not type(game):
        raise ValueError(f"{type(game).__name__} is none of the package's games {tuple(GAMES)}")
    if isinstance(mean_field, EmpiricalPath) and mean_field.floor != game.floor:
        raise ValueError(f"the mean field must be on the game's floor {game.floor}, it is on {mean_field.floor}")

    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "game": type(game).__name__,
        "constants": game.constants,
        "policy": _pack(policy),
        "mean_field": _pack(mean_field),
        "value": float(value),
        "exploitability": float(exploitability),
    }
    partial = f"{os.fspath(path)}.partial"
    torch.save(content, partial)
    os.replace(partial, path)


def load_equilibrium(path: str | os.PathLike[str]) -> Equilibrium:
    """The equilibrium in a file that a solver wrote: policy, mean field, return and exploitability.

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
        import zuko  # noqa: F401
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
        policy, mean_field = _unpack(content["policy"], game), _unpack(content["mean_field"], game)
        value, exploitability = float(content["value"]), float(content["exploitability"])
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged, or of a game that this package does not have") from error
    return Equilibrium(policy, mean_field, value, exploitability, game=game)


def _pack(part: Any) -> dict[str, Any]:
    """A policy or a mean field as data."""
    import torch

    if isinstance(part, Mixture):
        return {
            "kind": "Mixture",
            "policies": [_pack(policy) for policy in part.policies],
            "weights": part.weights.tolist(),
        }
    if isinstance(part, EmpiricalPath):
        states, actions = (None if a is None else torch.as_tensor(a) for a in (part.states, part.actions))
        return {"kind": "EmpiricalPath", "states": states, "actions": actions, "bandwidth": part.bandwidth}
    state = {name: tensor.cpu() for name, tensor in part.state_dict().items()}
    return {"kind": type(part).__name__, "arguments": part.arguments, "state": state}


def _unpack(content: dict[str, Any], game: Game) -> Any:
    """The policy or mean field again, which must be of the game's horizon and dimensions."""
    from mfg_envs.mean_field.flow import Flow
    from mfg_envs.policies import AveragePolicy, DeterministicPolicy

    if content["kind"] == "Mixture":
        return Mixture([_unpack(policy, game) for policy in content["policies"]], content["weights"])
    part: Any
    if content["kind"] == "EmpiricalPath":
        actions = None if content["actions"] is None else content["actions"].numpy()
        part = Empirical.from_trajectories(content["states"].numpy(), actions, game.floor, content["bandwidth"])
        action_dim = game.action_dim if actions is None else actions.shape[2]
    else:
        kind = {"AveragePolicy": AveragePolicy, "DeterministicPolicy": DeterministicPolicy, "Flow": Flow}
        part = kind[content["kind"]](**content["arguments"])
        part.load_state_dict(content["state"])
        part.eval()
        action_dim = part.action_dim
    if (part.dim, action_dim, part.horizon) != (game.dim, game.action_dim, game.horizon):
        raise ValueError(f"the {content['kind']} is not of this game")
    return part
