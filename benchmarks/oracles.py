"""What the grid oracle finds, how fast, and how good its policies are when they are played.

    python benchmarks/oracles.py

Each row solves a game on one grid. Its policy is then judged on the finest of the grids of that game: by the gain of a
best response there (`value`), and by that of the best response when both are played in the continuous game (`lower`).
Prints a Markdown table and writes benchmarks/results/oracles.csv. One thread; some ten minutes.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables

from mfg_envs.equilibrium import grid
from mfg_envs.games import BeachBar, FourRooms

RESULTS = Path(__file__).parent / "results" / "oracles.csv"
GAMES = {
    "BeachBar": (BeachBar(), (50, 100, 200, 400)),
    "FourRooms, entropy": (FourRooms(), (40, 60, 80)),
    "FourRooms, congestion": (FourRooms(crowd="congestion"), (40, 60, 80)),
}
IDLE = "doing nothing"


def idle(t: int, x: np.ndarray) -> np.ndarray:
    """Stay, but for the noise."""
    return np.zeros_like(x)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--agents", type=int, default=20_000, help="simulated agents behind `lower`")
    parser.add_argument("--iterations", type=int, help="at most; the default of `solve` otherwise")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    args = parser.parse_args()

    print("| game | cells | iterations | seconds | return | exploitability | on the finest grid | by play |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = []
    for name in args.games:
        game, resolutions = GAMES[name]
        for cells in (None, *resolutions):
            start = time.perf_counter()
            solved = None if cells is None else grid.solve(game, cells, iterations=args.iterations)
            seconds = time.perf_counter() - start
            judged = grid.exploitability(
                game, idle if solved is None else solved.policy, args.agents, cells=resolutions[-1]
            )
            row: dict[str, str | int | float] = {
                "game": name,
                "cells": IDLE if cells is None else cells,
                "iterations": 0 if solved is None else solved.history[-1][0],
                "seconds": 0.0 if solved is None else seconds,
                "return": judged.policy_return if solved is None else solved.value,
                "exploitability": judged.value if solved is None else solved.exploitability,
                "finest": judged.value,
                "resolution_error": judged.resolution_error,
                "crowd_error": judged.crowd_error,
                "play": judged.lower,
                "play_stderr": judged.stderr,
            }
            rows.append(row)
            print(
                f"| {name} | {row['cells']} | {row['iterations']} | {row['seconds']:.1f} | {row['return']:.4f} "
                f"| {row['exploitability']:.4f} | {judged.value:.4f} ± {judged.resolution_error:.4f} "
                f"| {judged.lower:.4f} ± {judged.stderr:.4f} |",
                flush=True,
            )
    tables.write(args.output, rows)


if __name__ == "__main__":
    main()
