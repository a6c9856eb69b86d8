"""The games: one file each, the equations written once."""

from mfg_envs.games.base import Game, check_array, check_integer, check_number, like
from mfg_envs.games.beach_bar import BeachBar
from mfg_envs.games.floor_plan import FloorPlan
from mfg_envs.games.four_rooms import FourRooms
from mfg_envs.games.linear_quadratic import LinearQuadratic
from mfg_envs.games.price_impact import PriceImpact

GAMES: dict[str, type[Game]] = {game.__name__: game for game in (LinearQuadratic, BeachBar, FourRooms, PriceImpact)}

__all__ = [
    "GAMES",
    "BeachBar",
    "FloorPlan",
    "FourRooms",
    "Game",
    "LinearQuadratic",
    "PriceImpact",
    "check_array",
    "check_integer",
    "check_number",
    "like",
]
