"""`mfg-envs play | film | picture`: the command line, read by tyro."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from mfg_envs.viewer.players import line_up
from mfg_envs.viewer.pygame_ce import pygame, start_display
from mfg_envs.viewer.scene import Quantity

EnvId = Annotated[str, tyro.conf.Positional]


@dataclass
class Shared:
    """What all commands take."""

    env_id: EnvId
    """the game: lq_v0, price_impact_v0, beach_bar_v0 or four_rooms_v0"""
    policy: str = "random"
    """who moves: random, nothing, exact (the oracle's equilibrium, on a grid a minute's work, once), or the path of an
    equilibrium.pt"""
    versus: tuple[str, ...] = ()
    """more policies, side by side with the first"""
    constants: tuple[str, ...] = ()
    """constants of the game, as NAME=VALUE"""
    seed: int = 0
    """of the noise"""


@dataclass
class Play(Shared):
    """Watch the swarm in a window, and play with it; H shows the keys."""

    num_agents: int = 1000
    """N"""
    speed: float = 8.0
    """steps a second"""

    def run(self) -> None:
        """Open the window."""
        from mfg_envs.viewer.session import sessions
        from mfg_envs.viewer.window import Window

        if not self.speed > 0:
            raise ValueError(f"--speed must be positive, got {self.speed}")
        start_display()  # before a minute is spent on an equilibrium
        game, players = line_up(self.env_id, (self.policy, *self.versus), self.constants)
        Window(sessions(game, players, self.num_agents, self.seed), self.speed).run()


@dataclass
class Film(Shared):
    """Film an episode, as .mp4, or as .gif of less than 2 MB if 32 colours will do."""

    out: Path = Path("swarm.gif")
    """the file, ending in .gif or .mp4"""
    num_agents: int | None = None
    """N; by default 400 in a .gif, 1,000 in an .mp4"""
    side: int | None = None
    """height of each panel in pixels; by default 280 in a .gif, 584 in an .mp4"""
    speed: float = 8.0
    """steps a second"""
    quantity: Quantity = "heading"
    """what colours the agents"""
    density: bool = True
    """draw the density of the crowd"""
    trails: bool = False
    """draw trails"""

    def run(self) -> None:
        """Film it."""
        from mfg_envs.viewer.film import FILMS, check_file, film

        check_file(self.out, FILMS)
        game, players = line_up(self.env_id, (self.policy, *self.versus), self.constants)
        look: dict[str, Any] = {"quantity": self.quantity, "density": self.density, "trails": self.trails}
        path = film(self.out, game, players, self.num_agents, self.seed, self.side, self.speed, **look)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@dataclass
class Picture(Shared):
    """Take a strip of snapshots: a row for each policy, a column for each time."""

    out: Path = Path("swarm.png")
    """the file, ending in .png"""
    num_agents: int = 400
    """N"""
    side: int | None = None
    """height of each panel in pixels; by default 240 for maps, 360 for space-time pictures"""
    times: tuple[int, ...] = ()
    """when; by default 0, T/8, T/2 and T, in one dimension T, which shows all times"""
    quantity: Quantity = "heading"
    """what colours the agents"""
    density: bool = True
    """draw the density of the crowd"""
    trails: bool = False
    """draw trails"""

    def run(self) -> None:
        """Take it."""
        from mfg_envs.viewer.film import PICTURES, check_file, picture

        check_file(self.out, PICTURES)
        game, players = line_up(self.env_id, (self.policy, *self.versus), self.constants)
        look: dict[str, Any] = {"quantity": self.quantity, "density": self.density, "trails": self.trails}
        path = picture(self.out, game, players, self.num_agents, self.seed, self.side, self.times, **look)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what goes wrong is one line and a non-zero exit."""
    commands: dict[str, Callable[..., Any]] = {"play": Play, "film": Film, "picture": Picture}
    command = tyro.extras.subcommand_cli_from_dict(
        commands, args=arguments, description="See the swarm: mean field games in a window, in films and in pictures."
    )
    try:
        command.run()
    except (ValueError, OSError, ImportError, pygame.error) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
