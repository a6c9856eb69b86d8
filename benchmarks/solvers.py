"""The solvers on the games, 4 seeds each, judged by the oracle: docs/solvers.md.

    python benchmarks/solvers.py            # all of it: some three hours of two cores
    python benchmarks/solvers.py --report   # tables and pictures from the runs that are finished

Runs go side by side, one a core with one PyTorch thread each, and are kept in runs/benchmark/: a run that is finished
is not repeated, one that was interrupted goes on from its checkpoint. DEDA-FP comes first, then the other solvers seed
by seed, so that a stop leaves complete comparisons. Judging is not counted as training.

After each run it writes benchmarks/results/solvers.csv, a row for each run, and solver_iterations.csv, a row for each
iteration that was judged; in the end the tables of docs/solvers.md between their markers, and the pictures in assets/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import solver_report
import tables
import torch
from tqdm import tqdm

from mfg_envs import load_equilibrium
from mfg_envs.equilibrium import solve

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "solvers.csv"
ITERATIONS = ROOT / "benchmarks" / "results" / "solver_iterations.csv"
SEEDS = (1, 2, 3, 4)
GAMES: dict[str, tuple[str, ...]] = {  # what a run is called, and its arguments
    "lq_v0": ("--env-id", "lq_v0"),
    "price_impact_v0": ("--env-id", "price_impact_v0"),
    "beach_bar_v0": ("--env-id", "beach_bar_v0"),
    "four_rooms_v0": ("--env-id", "four_rooms_v0"),
    "four_rooms_v0_congestion": ("--env-id", "four_rooms_v0", "--constants", "crowd=congestion"),
}
OTHERS: dict[str, tuple[str, ...]] = {  # solvers beside DEDA-FP with PPO, and their games
    "dafp_ppo": ("beach_bar_v0", "four_rooms_v0", "four_rooms_v0_congestion"),
    "fp_ppo": ("beach_bar_v0", "four_rooms_v0", "four_rooms_v0_congestion"),
    "dedafp_sac": ("lq_v0", "price_impact_v0", "beach_bar_v0"),
}
JOBS = [("dedafp_ppo", game, seed) for game in GAMES for seed in SEEDS]
JOBS += [(solver, game, seed) for seed in SEEDS for solver, games in OTHERS.items() for game in games]

stopping = threading.Event()


def folder(solver: str, game: str, seed: int) -> Path:
    """Where a run is kept."""
    return RUNS / f"{game}__{solver}__{seed}"


def finished(job: tuple[str, str, int]) -> bool:
    """Whether a run has its results."""
    return (folder(*job) / "summary.json").is_file()


def run(solver: str, game: str, seed: int) -> None:
    """One run of a solver with its defaults, in a process of its own."""
    path = folder(solver, game, seed)
    if stopping.is_set() or finished((solver, game, seed)):
        return
    command = [sys.executable, str(ROOT / "solvers" / f"{solver}.py")]
    if (path / "checkpoint.pt").is_file():
        command += ["--resume", str(path)]
    else:
        command += [*GAMES[game], "--seed", str(seed), "--runs-dir", str(RUNS), "--run-name", path.name]
    with (RUNS / f"{path.name}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def judge(solver: str, game: str, seed: int) -> dict[str, Any]:
    """A row of figures: what the summary says, and in one dimension the crowd against the exact one."""
    path = folder(solver, game, seed)
    summary = json.loads((path / "summary.json").read_text())
    row = {
        "solver": solver,
        "game": game,
        "seed": seed,
        "iterations": summary["iterations"],
        "exploitability": summary["exploitability"],
        "by_play": summary["exploitability_by_play"],
        "stderr": summary["exploitability_stderr"],
        "share_of_doing_nothing": summary["exploitability_relative"],
        "seconds": summary["seconds"],
        "cpu_seconds": summary["cpu_seconds"],
        "env_steps": summary["env_steps"],
        "largest_error_of_mean": "",
        "largest_relative_error_of_std": "",
    }
    learnt = load_equilibrium(path / "equilibrium.pt")
    assert learnt.game is not None
    if learnt.game.dim == 1:
        exact, steps = solve(learnt.game), range(learnt.game.horizon + 1)
        means, exact_means = (np.stack([mu.at(t).mean for t in steps]) for mu in (learnt.mean_field, exact.mean_field))
        spread = learnt.mean_field.sample_path(20_000, np.random.default_rng(0)).std(axis=1)
        exact_spread = exact.mean_field.sample_path(20_000, np.random.default_rng(0)).std(axis=1)
        row["largest_error_of_mean"] = float(np.abs(means - exact_means).max())
        row["largest_relative_error_of_std"] = float(np.abs(spread / exact_spread - 1).max())
    return row


def judged_iterations(solver: str, game: str, seed: int) -> list[dict[str, Any]]:
    """A row for each iteration that the oracle looked at: cost so far, exploitability, errors."""
    history = torch.load(folder(solver, game, seed) / "checkpoint.pt", weights_only=True)["history"]
    columns = (
        "charts/seconds",
        "charts/cpu_seconds",
        "charts/env_steps",
        "charts/exploitability",
        *solver_report.ERRORS,
    )
    rows = []
    for i, figures in enumerate(history, 1):
        if "charts/exploitability" in figures:
            row = {name.replace("charts/", ""): figures.get(name, "") for name in columns}
            rows.append({"solver": solver, "game": game, "seed": seed, "iteration": i} | row)
    return rows


def main() -> None:
    """Run what is missing, write the CSVs, the tables and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--solvers", nargs="+", choices=("dedafp_ppo", *OTHERS), default=["dedafp_ppo", *OTHERS])
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    wanted = [job for job in JOBS if job[0] in options.solvers and job[1] in options.games and job[2] in options.seeds]
    missing = [] if options.report else [job for job in wanted if not finished(job)]
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}

    def record() -> None:
        """The CSVs have all finished runs, whichever were asked for."""
        done = [job for job in JOBS if finished(job)]
        rows.update({job: judge(*job) for job in done if job not in rows})
        if done:
            tables.write(RESULTS, [rows[job] for job in done])
            tables.write(ITERATIONS, [row for job in done for row in judged_iterations(*job)])

    record()
    with ThreadPoolExecutor(options.processes) as pool, tqdm(total=len(missing), unit="run") as bar:
        jobs = {pool.submit(run, *job): job for job in missing}
        try:
            for future in as_completed(jobs):
                future.result()
                record()
                share = rows[jobs[future]]["share_of_doing_nothing"]
                bar.write(f"{folder(*jobs[future]).name}: {share:.2%} of doing nothing's exploitability")
                bar.update()
        except BaseException:  # of this process or of a run: the others end after their run, or are interrupted too
            stopping.set()
            raise
    solver_report.write(RESULTS, ITERATIONS, RUNS)
    for job in JOBS:
        if job[2] == SEEDS[0] and finished(job) and (job[0] == "dedafp_ppo" or job[1] == "beach_bar_v0"):
            shutil.copy(folder(*job) / "equilibrium.png", ROOT / "assets" / f"{job[0]}_{job[1]}.png")


if __name__ == "__main__":
    main()
