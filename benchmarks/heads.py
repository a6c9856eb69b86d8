"""What is played of an average policy: its mean, draws from it, or the best responses that it averages.

    python benchmarks/heads.py

From the checkpoints of `python benchmarks/solvers.py`, of all finished runs of solvers/dedafp_ppo.py and dafp_ppo.py:
exploitability of the mean of the average policy's Gaussian, of its draws, and of the exact mixture of all best
responses so far with the same weights. So what differs is only how the same best responses are averaged. They were made
in the crowd of those who play the mean in DEDA-FP, of those who play draws in Algorithm 2. In the rooms on 40 cells.
Means and standard deviations over seeds.

Writes benchmarks/results/heads.csv and the table of docs/dedafp_ppo.md between its markers. Some ten minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import solver_report
import tables
import torch
from tqdm import tqdm

from mfg_envs import load_equilibrium
from mfg_envs.equilibrium import Mixture, exploitability
from mfg_envs.games import FourRooms, Game
from mfg_envs.policies import AveragePolicy, DeterministicPolicy

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "heads.csv"
CELLS = 40
POWER = {"uniform": 0, "linear": 1, "quadratic": 2}
HEADS = {"mean": "its mean", "draws": "its draws", "mixture": "all best responses"}
SOLVERS = ("dedafp_ppo", "dafp_ppo")


def network(kind: Any, state: dict[str, torch.Tensor], game: Game, waves: int) -> Any:
    """A policy from its state in a checkpoint."""
    where = (tuple(state[name].tolist()) for name in ("location", "scale", "action_scale"))
    policy = kind(game.dim, game.action_dim, game.horizon, *where, waves=waves)
    policy.load_state_dict(state)
    return policy


def measure(run: Path) -> dict[str, float]:
    """Exploitability of the three ways to play what a run has learnt."""
    game = load_equilibrium(run / "equilibrium.pt").game
    assert game is not None
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    waves = saved["args"]["waves"]
    average = network(AveragePolicy, saved["policy"], game, waves)
    responses = [network(DeterministicPolicy, state, game, waves) for state in saved["responses"]]
    weights = np.arange(1.0, len(responses) + 1) ** POWER[saved["args"]["averaging"]]
    policies = {"mean": average.mean_policy(), "draws": average, "mixture": Mixture(responses, weights)}
    coarse = {"cells": CELLS} if isinstance(game, FourRooms) else {}
    return {name: float(exploitability(game, policy, 20_000, seed=1, **coarse)) for name, policy in policies.items()}


def main() -> None:
    """Measure all runs, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "dedafp_ppo.md", help="with markers for the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [(game, solver) for game in solver_report.TITLES for solver in SOLVERS]
    runs = [(*name, path) for name in names for path in sorted(RUNS.glob("__".join((*name, "?"))))]
    runs = [(game, solver, path) for game, solver, path in runs if (path / "summary.json").is_file()]
    if not runs:
        sys.exit(f"there are no finished runs in {RUNS}; python benchmarks/solvers.py makes them")
    rows: list[dict[str, Any]] = [
        {"game": game, "solver": solver, "seed": path.name[-1], **measure(path)}
        for game, solver, path in tqdm(runs, unit="run")
    ]
    tables.write(options.output, rows)
    lines = ["| game | solver | " + " | ".join(HEADS.values()) + " |", "|---|---|" + "---:|" * len(HEADS)]
    for game, solver in names:
        found = [row for row in rows if (row["game"], row["solver"]) == (game, solver)]
        if found:
            cells = [solver_report.spread(np.array([row[head] for row in found])) for head in HEADS]
            lines.append(
                f"| {solver_report.TITLES[game]} | {solver_report.NAMES[solver]} | " + " | ".join(cells) + " |"
            )
    print("\n".join(lines))
    tables.fill(options.page, "heads", "\n".join(lines), "heads.py")


if __name__ == "__main__":
    main()
