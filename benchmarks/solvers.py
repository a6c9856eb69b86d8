"""The solvers on the games, 4 seeds each, judged by the oracle.

    python benchmarks/solvers.py

Runs go side by side, one a core with one PyTorch thread each, and are kept in runs/benchmark/: a run that is finished
is not repeated, one that was interrupted goes on from its checkpoint. Writes benchmarks/results/solvers.csv, and copies
the picture of the first seed to assets/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tables

from mfg_envs import load_equilibrium
from mfg_envs.equilibrium import solve

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "solvers.csv"
SOLVERS = ("dedafp_ppo",)
GAMES: dict[str, tuple[str, ...]] = {  # what a run is called, and its arguments
    "lq_v0": ("--env-id", "lq_v0"),
    "price_impact_v0": ("--env-id", "price_impact_v0"),
    "beach_bar_v0": ("--env-id", "beach_bar_v0"),
    "four_rooms_v0": ("--env-id", "four_rooms_v0"),
    "four_rooms_v0_congestion": ("--env-id", "four_rooms_v0", "--constants", "crowd=congestion"),
}


def run(solver: str, game: str, seed: int) -> Path:
    """One run of a solver with its defaults, in a process of its own; the folder with its results."""
    folder = RUNS / f"{game}__{solver}__{seed}"
    if not (folder / "summary.json").is_file():
        command = [sys.executable, str(ROOT / "solvers" / f"{solver}.py")]
        if (folder / "checkpoint.pt").is_file():
            command += ["--resume", str(folder)]
        else:
            command += [*GAMES[game], "--seed", str(seed), "--runs-dir", str(RUNS), "--run-name", folder.name]
        with (RUNS / f"{folder.name}.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def judge(solver: str, game: str, seed: int, folder: Path) -> dict[str, Any]:
    """A row of figures: what the summary says, and in one dimension the flow against the exact crowd."""
    summary = json.loads((folder / "summary.json").read_text())
    row = {
        "solver": solver,
        "game": game,
        "seed": seed,
        "exploitability": round(summary["exploitability"], 5),
        "by_play": round(summary["exploitability_by_play"], 5),
        "stderr": round(summary["exploitability_stderr"], 5),
        "share_of_doing_nothing": round(summary["exploitability_relative"], 5),
        "seconds": round(summary["seconds"], 1),
        "cpu_seconds": round(summary["cpu_seconds"], 1),
        "env_steps": summary["env_steps"],
        "largest_error_of_mean": "",
        "largest_relative_error_of_std": "",
    }
    learnt = load_equilibrium(folder / "equilibrium.pt")
    assert learnt.game is not None
    if learnt.game.dim == 1:
        exact, steps = solve(learnt.game), range(learnt.game.horizon + 1)
        means, exact_means = (np.stack([mu.at(t).mean for t in steps]) for mu in (learnt.mean_field, exact.mean_field))
        spread = learnt.mean_field.sample_path(20_000, np.random.default_rng(0)).std(axis=1)
        exact_spread = exact.mean_field.sample_path(20_000, np.random.default_rng(0)).std(axis=1)
        row["largest_error_of_mean"] = round(float(np.abs(means - exact_means).max()), 4)
        row["largest_relative_error_of_std"] = round(float(np.abs(spread / exact_spread - 1).max()), 4)
    return row


def main() -> None:
    """Run what is missing, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    jobs = [(solver, game, seed) for game in options.games for solver in SOLVERS for seed in options.seeds]
    rows = []
    with ThreadPoolExecutor(options.processes) as pool:
        for job, folder in zip(jobs, pool.map(lambda job: run(*job), jobs), strict=True):
            rows.append(judge(*job, folder))
            print(", ".join(f"{name} {figure}" for name, figure in rows[-1].items()), flush=True)
    tables.write(RESULTS, rows)
    for solver, game, seed in jobs:
        if seed == options.seeds[0]:
            picture = RUNS / f"{game}__{solver}__{seed}" / "equilibrium.png"
            shutil.copy(picture, ROOT / "assets" / f"{solver}_{game}.png")


if __name__ == "__main__":
    main()
