"""Milliseconds to draw a frame, and frames a second of the interactive window, without a screen and in software.

    python benchmarks/rendering.py

"Draw" is a frame of 720 x 720 of a play that is half through, under random actions: the density of the crowd estimated
anew, agents, text. "rgb_array" is `render()` of the environment: the same, the direction in which everybody moves, and
a copy of the pixels. "Play" is the window's own loop (events, simulation at 8 steps a second, drawing) as fast as it
goes, with SDL's dummy driver. Drawing is measured in CPU time of its one thread, play on the wall clock. Medians over
repeats; "best" is the fastest repeat, for machines that others use, too. Writes benchmarks/results/rendering.csv.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["SDL_VIDEODRIVER"] = "dummy"

import numpy as np
import tables

from mfg_envs.all_modules import all_modules
from mfg_envs.equilibrium import solve
from mfg_envs.games import FourRooms, Game
from mfg_envs.viewer.layout import FRAME, Layout
from mfg_envs.viewer.painter import Painter
from mfg_envs.viewer.players import Player, Uniform
from mfg_envs.viewer.pygame_ce import pygame
from mfg_envs.viewer.session import sessions
from mfg_envs.viewer.window import Window

LINE = "{:8.2f} | {:4.2f} | {:9.2f} | {:4.2f} | {:14.0f} | {:4.0f}"
RESULTS = Path(__file__).parent / "results"


def draw(game: Game, num_agents: int, repeats: int) -> list[float]:
    """Seconds of each of some frames."""
    session = sessions(game, [Player("random", Uniform(game))], num_agents)[0]
    for _ in range(game.horizon // 2):
        session.step()
    painter = Painter(Layout(FRAME, FRAME))
    painter.paint([session.scene()])  # what came before is known, and so are sprites and text
    seconds = []
    for _ in range(repeats):
        session.forget(session.t)
        start = time.process_time()
        painter.paint([session.scene()])
        seconds.append(time.process_time() - start)
    return seconds


def rgb_array(module: Any, num_agents: int, repeats: int) -> list[float]:
    """Seconds of each of some calls of `render()`."""
    env = module.parallel_env(num_agents=num_agents, render_mode="rgb_array")
    env.reset(seed=0)
    rng, low, high = np.random.default_rng(0), env.game.action_low, env.game.action_high
    for _ in range(env.game.horizon // 2):
        a = rng.uniform(low, high, (num_agents, len(low)))
        env.step(dict(zip(env.agents, a, strict=True)))
        env.render()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        env.render()
        seconds.append(time.process_time() - start)
    return seconds


def play(game: Game, player: Player, num_agents: int, repeats: int) -> list[float]:
    """Frames a second in each of some seconds of play."""
    window = Window(sessions(game, [player], num_agents))
    rates = []
    for second in range(repeats + 1):
        start = last = time.perf_counter()
        frames = 0
        while (now := time.perf_counter()) < start + 1:
            for event in pygame.event.get():
                window.handle(event)
            window.advance(now - last)
            last = now
            if window.sessions[0].done and window.phase >= 1:
                window.sessions[0].reset()
            window.draw()
            frames += 1
        if second > 0:  # the first is for caches
            rates.append(frames / (now - start))
    pygame.display.quit()
    return rates


def main() -> None:
    """Measure, print a table, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    rooms = solve(FourRooms(), cells=40, iterations=10)
    players = {name: [Player("random", Uniform(module.parallel_env().game))] for name, module in all_modules.items()}
    players["four_rooms_v0"].append(Player("mixture of 10", rooms.policy, rooms))
    rows = []
    print("game, policy                 |     N | draw, ms | best | rgb_array | best | play, frames/s | best")
    for name, module in all_modules.items():
        game = module.parallel_env().game
        for num_agents in options.agents:
            drawn = [1e3 * seconds for seconds in draw(game, num_agents, 20 * options.repeats)]
            given = [1e3 * seconds for seconds in rgb_array(module, num_agents, 20 * options.repeats)]
            for player in players[name]:
                rates = play(game, player, num_agents, options.repeats)
                row: dict[str, Any] = {"game": name, "policy": player.name, "num_agents": num_agents}
                row |= {"draw_ms": float(np.median(drawn)), "draw_ms_best": min(drawn)}
                row |= {"rgb_array_ms": float(np.median(given)), "rgb_array_ms_best": min(given)}
                row |= {"play_fps": float(np.median(rates)), "play_fps_best": max(rates)}
                rows.append(row)
                figures = list(row.values())[3:]
                print(f"{name + ', ' + player.name:28} | {num_agents:5} | " + LINE.format(*figures), flush=True)
    tables.write(RESULTS / "rendering.csv", rows)


if __name__ == "__main__":
    main()
