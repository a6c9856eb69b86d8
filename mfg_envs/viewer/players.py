"""Who moves: random actions, nobody, the oracle's equilibrium, or a policy from a file."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfg_envs.envs import Policy
from mfg_envs.equilibrium import Equilibrium, load_equilibrium, solve
from mfg_envs.equilibrium.linear_quadratic import has_closed_form
from mfg_envs.games import Game


@dataclass(frozen=True, eq=False)
class Player:
    """A policy with a name, and the equilibrium that it belongs to, if any."""

    name: str
    policy: Policy
    equilibrium: Equilibrium | None = None


class Uniform:
    """Actions drawn uniformly from the box, which the game projects."""

    def __init__(self, game: Game) -> None:
        self._low, self._high, self._rng = game.action_low, game.action_high, np.random.default_rng(0)

    def reset(self, n: int, rng: np.random.Generator) -> None:
        """Draw from `rng` from now on."""
        self._rng = rng

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions: x (n, d) -> (n, k)."""
        return self._rng.uniform(self._low, self._high, (len(x), len(self._low)))


class Nothing:
    """The action in the middle of the box, which is 0 in all games of the package."""

    def __init__(self, game: Game) -> None:
        self._action = game.project_action((game.action_low + game.action_high)[None] / 2)

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions: x (n, d) -> (n, k)."""
        return np.repeat(self._action, len(x), axis=0)


def line_up(
    env_id: str, policies: Sequence[str], constants: Sequence[str] = (), cache: Path | None = None
) -> tuple[Game, list[Player]]:
    """The game of an environment, and the players that are named.

    A file brings its game's constants along, unless constants are given; all players must then be of that one game.

    Args:
        env_id: as `four_rooms_v0` or `mfg_envs/four_rooms-v0`.
        policies: "random", "nothing", "exact", or the path of an `equilibrium.pt`, each.
        constants: of the game, as NAME=VALUE.
        cache: folder of equilibria solved on a grid; None for `mfg-envs` in the user's cache folder.

    Raises:
        ValueError: for an unknown environment or constant, a file that is damaged or of another game, a game that has
            no oracle.
        FileNotFoundError: if there is no such file.
        ImportError: if a file needs PyTorch or zuko and they are not there.
    """
    files = {p: load_equilibrium(p) for p in policies if p not in ("random", "nothing", "exact")}
    game = make_game(env_id, constants)
    for path, equilibrium in files.items():
        if type(equilibrium.game) is not type(game):
            raise ValueError(f"{path} is an equilibrium of {type(equilibrium.game).__name__}, not of {env_id}")
    if files and not constants:
        game = next(equilibrium.game for equilibrium in files.values() if equilibrium.game is not None)
    for path, equilibrium in files.items():
        if equilibrium.game != game:
            raise ValueError(f"{path} is an equilibrium of {equilibrium.game}, not of {game}")
    players = []
    for policy in policies:
        if policy == "random":
            players.append(Player("random actions", Uniform(game)))
        elif policy == "nothing":
            players.append(Player("doing nothing", Nothing(game)))
        elif policy == "exact":
            players.append(exact(game, cache))
        else:
            file = Path(policy)
            name = file.parent.name if file.stem == "equilibrium" and file.parent.name else file.stem
            players.append(Player(name, files[policy].policy, files[policy]))
    return game, players


def exact(game: Game, cache: Path | None = None) -> Player:
    """The oracle's equilibrium: in closed form, or from a grid, with a bar, kept in `cache`.

    Raises:
        ValueError: if there is no unique equilibrium (closed forms), or no oracle for the game.
    """
    if has_closed_form(game):
        name, equilibrium = "exact equilibrium", solve(game)
    else:
        name = "equilibrium on a grid"
        folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfg-envs"
        folder.mkdir(parents=True, exist_ok=True)
        constants = json.dumps(game.constants, sort_keys=True)
        file = folder / f"{type(game).__name__}-{hashlib.sha256(constants.encode()).hexdigest()[:16]}.npz"
        try:
            equilibrium = solve(game, cache=file, progress=True)
        except ValueError:
            if not file.exists():
                raise
            file.unlink()  # damaged
            equilibrium = solve(game, cache=file, progress=True)
    return Player(name, equilibrium.policy, equilibrium)


def make_game(env_id: str, constants: Sequence[str] = ()) -> Game:
    """The game of an environment, with constants as NAME=VALUE.

    Raises:
        ValueError: for an unknown environment or constant, or a constant out of range.
    """
    from mfg_envs import ENVIRONMENTS

    name = "mfg_envs/" + env_id.removeprefix("mfg_envs/").replace("_v", "-v")
    if name not in ENVIRONMENTS:
        known = ", ".join(module.removeprefix("mfg_envs.") for module in ENVIRONMENTS.values())
        raise ValueError(f"there is no environment {env_id!r}; there are {known}")
    given: dict[str, Any] = {}
    for pair in constants:
        constant, equals, text = pair.partition("=")
        if not equals or not constant.isidentifier():
            raise ValueError(f"constants are given as NAME=VALUE, got {pair!r}")
        try:
            given[constant] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            given[constant] = text
    try:
        return importlib.import_module(ENVIRONMENTS[name]).parallel_env(num_agents=1, **given).game
    except TypeError as error:
        raise ValueError(f"{env_id} has no such constant: {error}") from error


def title(game: Game) -> str:
    """The game's name and those of its constants that are not the default."""
    plain = {field.name: field.default for field in dataclasses.fields(game)}  # type: ignore[arg-type]
    changed = [f"{k}={v}" for k, v in game.constants.items() if v != plain[k]]
    return ", ".join([type(game).__name__, *changed])
