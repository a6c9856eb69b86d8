"""The films of README and docs: python assets/make_films.py (some minutes, most of them to solve the four rooms).

    python assets/make_films.py --four-rooms runs/benchmark/four_rooms_v0__dedafp_ppo__1/equilibrium.pt

puts a learnt equilibrium between doing nothing and the oracle's. Solutions on a grid are kept in a cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import numpy as np

os.environ["SDL_VIDEODRIVER"] = "dummy"  # the window is drawn, but not shown

from mfg_envs.viewer.film import film, picture
from mfg_envs.viewer.players import line_up
from mfg_envs.viewer.pygame_ce import pygame
from mfg_envs.viewer.session import sessions
from mfg_envs.viewer.window import Window

ASSETS = Path(__file__).parent
SEED = 0
FILMS = {  # name: environment, policies, constants
    "four_rooms": ("four_rooms_v0", ["nothing", "exact"], []),
    "congestion": ("four_rooms_v0", ["nothing", "exact"], ["crowd=congestion"]),
    "beach_bar": ("beach_bar_v0", ["nothing", "exact"], []),
    "lq": ("lq_v0", ["nothing", "exact"], []),
}


def window(path: Path) -> None:
    """The interactive window: an agent of the crowd that explores the four rooms is pulled to the right."""
    game, players = line_up("four_rooms_v0", ["exact"])
    shown = Window(sessions(game, players, 1000, SEED))
    session = shown.sessions[0]
    for _ in range(4):
        session.step()
    session.grab(np.array([-0.45, -0.55]))
    session.pull(np.array([0.6, -0.5]))
    for _ in range(14):
        session.step()
    shown.paused, shown.trails = True, True
    shown.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=(130, 190), rel=(0, 0), buttons=(0, 0, 0)))
    shown.draw()
    pygame.image.save(shown.painter.surface, str(path))
    pygame.display.quit()


def main() -> None:
    """Make them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--four-rooms", metavar="PATH", help="an equilibrium.pt of four_rooms_v0")
    parser.add_argument("--only", nargs="+", default=[*FILMS, "window"], choices=[*FILMS, "window"])
    options = parser.parse_args()
    for name, (env_id, policies, constants) in FILMS.items():
        if name in options.only:
            learnt = [options.four_rooms] if name == "four_rooms" and options.four_rooms else []
            game, players = line_up(env_id, [policies[0], *learnt, *policies[1:]], constants)
            players[1:-1] = [dataclasses.replace(player, name="DEDA-FP") for player in players[1:-1]]
            path = film(ASSETS / f"{name}.gif", game, players, seed=SEED)
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
            if name == "four_rooms":
                picture(ASSETS / "four_rooms_strip.png", game, players, seed=SEED)
    if "window" in options.only:
        window(ASSETS / "window.png")


if __name__ == "__main__":
    main()
