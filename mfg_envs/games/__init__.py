"""The games: one file each, the equations written once."""

from mfg_envs.games.base import Game
from mfg_envs.games.linear_quadratic import LinearQuadratic

GAMES: dict[str, type[Game]] = {game.__name__: game for game in (LinearQuadratic,)}

__all__ = ["GAMES", "Game", "LinearQuadratic"]
