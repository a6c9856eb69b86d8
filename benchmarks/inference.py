"""What it costs to draw agents and to read the density, after learning: Algorithms 1 and 2, and DEDA-FP.

    python benchmarks/inference.py

The table of Magnino et al. (arXiv 2510.22158) on the exploration game of the four rooms: `--agents` agents at all
t = 0, ..., T, and the density at `--points` points, spread evenly over t and uniform on the floor, the same for all.
From each equilibrium that a solver has written, nothing else is used:

- Algorithm 1 (fp_ppo): agents play a mixture of best responses, which gives paths; the density is a kernel estimate;
- Algorithm 2 (dafp_ppo): agents play the average policy, which gives paths; the density is a kernel estimate;
- DEDA-FP (dedafp_ppo): the flow gives independent samples of each mu_t, no paths, and its density needs no agents.
  (Paths are to be had of its average policy, at the cost of Algorithm 2.)

The kernel estimate is the package's, on a mesh; what it costs to sum one kernel for each agent and point, by SciPy and
blind to the walls, stands beside it. Times are the best of `--repeats` rounds through all of them, after a warm-up
which leaves the mesh's operators in the cache. Play computes rewards besides, and PyTorch alone has `--threads`.

How true the densities are, beside: a policy's own crowd is its push-forward by the oracle, the equilibrium is the
oracle's. Distances are total variations on the oracle's cells, averaged over t. They compare laws on the floor, so the
part of a flow's samples that is off it is a figure of its own. The error of the log density is that of
log(density + eps), with the eps of the game's reward, against the own crowd: its root mean square over the points,
weighted at each t by the own crowd's density there, averaged over t.

Writes benchmarks/results/inference.csv and the tables of docs/solvers.md between their markers. Some ten minutes.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables
import torch
from scipy.stats import gaussian_kde

from mfg_envs import load_equilibrium
from mfg_envs.envs import simulate
from mfg_envs.equilibrium import Equilibrium, solve
from mfg_envs.equilibrium.grid import Model
from mfg_envs.games import FourRooms
from mfg_envs.mean_field import Empirical, Flow, Grid, MeanField

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmark"
SOLUTION = RUNS / "four_rooms_v0__oracle.npz"
RESULTS = ROOT / "benchmarks" / "results" / "inference.csv"
ALGORITHMS = {"fp_ppo": "Algorithm 1", "dafp_ppo": "Algorithm 2", "dedafp_ppo": "DEDA-FP"}
PAPER = {"fp_ppo": 16.76, "dafp_ppo": 15.14, "dedafp_ppo": 1.52}  # seconds that it reports, on an RTX 4090
FLOW, MESH, SUM = "flow", "kernels, on a mesh", "kernels, summed"
SEED = 0


def load(runs: Path, seed: int) -> dict[str, Equilibrium]:
    """What the solvers have learnt; ends the program with what to do where one has not run."""
    learnt, folder = {}, os.path.relpath(runs)
    for solver in ALGORITHMS:
        name = f"four_rooms_v0__{solver}__{seed}"
        path = runs / name / "equilibrium.pt"
        if not path.is_file():
            command = f"python solvers/{solver}.py --env-id four_rooms_v0 --seed {seed} --runs-dir {folder}"
            sys.exit(f"there is no {folder}/{name}/equilibrium.pt; to make it: {command} --run-name {name}")
        learnt[solver] = load_equilibrium(path)
        if learnt[solver].game != FourRooms():
            sys.exit(f"{path} must be of {FourRooms()}, it is of {learnt[solver].game}")
    return learnt


def uniform(game: FourRooms, n: int, rng: np.random.Generator) -> np.ndarray:
    """n points on the floor for each t, (T+1, n, 2)."""
    x = rng.uniform(game.floor.low, game.floor.high, (game.horizon + 1, 2 * n + 100, 2))
    return np.stack([row[game.floor.contains(row)][:n] for row in x])


class Subject:
    """What one solver has learnt, as a sampler and as densities.

    Args:
        learnt: the equilibrium of a file.
        agents: how many are drawn.
        points: where densities are read, (T+1, n, 2).

    Attributes:
        gives: what samples are.
        states: samples, (T+1, agents, 2).
        crowd: the mean field of the density that is judged: the flow, or the agents with their kernel estimate.
        estimates: calls that read log densities at the points, given the agents, (T+1, n), by what they read them by.
    """

    def __init__(self, learnt: Equilibrium, agents: int, points: np.ndarray) -> None:
        self.learnt, self.agents = learnt, agents
        self.flow = learnt.mean_field if isinstance(learnt.mean_field, Flow) else None
        self.gives = "paths" if self.flow is None else "independent marginals"
        self.states = self.draw()
        self.crowd = self.flow or self.with_kernels()
        self.estimates: dict[str, Callable[[], np.ndarray]] = {FLOW: lambda: self.crowd.log_density_path(points)}
        if self.flow is None:
            self.estimates = {
                MESH: lambda: self.with_kernels().log_density_path(points),
                SUM: lambda: summed(self.states, points),
            }

    def draw(self) -> np.ndarray:
        """Agents at all t, from the flow if there is one, else by play."""
        if self.flow is not None:
            return self.flow.sample_path(self.agents, np.random.default_rng(SEED))
        return simulate(FourRooms(), self.learnt.policy, num_agents=self.agents, seed=SEED).states

    def with_kernels(self) -> MeanField:
        """The agents with their kernel estimate, which is made anew at first use."""
        return Empirical.from_trajectories(self.states, floor=FourRooms().floor)


def summed(states: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Log of the sum of a Gaussian kernel for each agent, (T+1, n), with SciPy's bandwidth."""
    with np.errstate(divide="ignore"):
        return np.log(np.stack([gaussian_kde(x.T)(p.T) for x, p in zip(states, points, strict=True)]))


def in_turn(calls: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Seconds of each call, the best of several rounds through all after a warm-up: what slows one round slows all."""
    best = dict.fromkeys(calls, math.inf)
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def log_error(found: np.ndarray, true: np.ndarray, eps: float) -> float:
    """Root mean square of the error of log(density + eps) from log densities (T+1, n), weighted by the true density."""
    weights = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    errors = np.log(np.exp(found) + eps) - np.log(np.exp(true) + eps)
    return math.sqrt((weights * errors**2).sum(axis=1).mean())


def judge(subject: Subject, model: Model, nash: Grid, points: np.ndarray) -> dict[str, dict[str, Any]]:
    """How true the densities are, by what they are read by."""
    game = cast(FourRooms, model.game)
    own, _ = model.flow(subject.learnt.policy)
    true = own.log_density_path(points)
    on_cells = Grid(model.mesh, model.masses(subject.crowd))
    off = 1 - game.floor.contains(subject.states.reshape(-1, 2)).reshape(-1, subject.agents).mean(axis=1)
    judged = {
        "off_floor": float(off.mean()),
        "off_floor_worst": float(off.max()),
        "tv_density_own": model.total_variation(on_cells, own),
        "tv_density_equilibrium": model.total_variation(on_cells, nash),
    }
    return {
        by: {
            **(dict.fromkeys(judged, "") if by == SUM else judged),
            "log_density_rms": log_error(estimate(), true, game.eps),
            "tv_own_equilibrium": model.total_variation(own, nash),
            "exploitability": subject.learnt.exploitability,
        }
        for by, estimate in subject.estimates.items()
    }


def time_all(subjects: dict[str, Subject], threads: int, repeats: int) -> list[dict[str, Any]]:
    """What drawing and reading take, a row for each subject and what its density is read by."""
    torch.set_num_threads(threads)
    calls: dict[Any, Callable[[], object]] = {}
    for solver, subject in subjects.items():
        calls[solver, "draw"] = subject.draw
        calls |= {(solver, by): estimate for by, estimate in subject.estimates.items()}
    best = in_turn(calls, repeats)
    base = best["dedafp_ppo", "draw"] + best["dedafp_ppo", FLOW]
    rows = []
    for solver, subject in subjects.items():
        for by in subject.estimates:
            drawn, read = best[solver, "draw"], best[solver, by]
            rows.append(
                {
                    "solver": solver,
                    "algorithm": ALGORITHMS[solver],
                    "gives": subject.gives,
                    "density_by": by,
                    "agents": subject.agents,
                    "torch_threads": threads,
                    "draw_s": drawn,
                    "density_s": read,
                    "both_s": drawn + read,
                    "density_alone_s": read if by == FLOW else drawn + read,
                    "both_ratio": (drawn + read) / base,
                    "paper_s": PAPER[solver],
                }
            )
    return rows


def times_table(rows: list[dict[str, Any]]) -> str:
    """What it takes."""
    agents, points = f"{rows[0]['agents']:,} agents", f"{rows[0]['points']:,} points"
    lines = [
        f"| | gives | density by | PyTorch threads | {agents}, s | density at {points}, given them, s "
        "| both, s | density alone, s | both, DEDA-FP's = 1 | in the paper, s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        words = (str(row[key]) for key in ("algorithm", "gives", "density_by", "torch_threads"))
        times = (f"{row[key]:.3g}" for key in ("draw_s", "density_s", "both_s", "density_alone_s", "both_ratio"))
        lines.append(f"| {' | '.join(words)} | {' | '.join(times)} | {row['paper_s']} |")
    return "\n".join(lines)


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """How true it is."""
    lines = [
        "| | density by | samples off the floor | at the worst t | TV, density to own crowd "
        "| RMS error of the log density | TV, own crowd to equilibrium | TV, density to equilibrium | exploitability |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    keys = ["off_floor", "off_floor_worst", "tv_density_own", "log_density_rms"]
    keys += ["tv_own_equilibrium", "tv_density_equilibrium", "exploitability"]
    for row in rows:
        if row["torch_threads"] == rows[0]["torch_threads"]:
            figures = (row[key] if row[key] == "" else f"{row[key]:.3f}" for key in keys)
            lines.append(f"| {row['algorithm']} | {row['density_by']} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs four_rooms_v0__<solver>__<seed>")
    parser.add_argument("--seed", type=int, default=1, help="of the runs")
    parser.add_argument("--agents", type=int, default=5_000)
    parser.add_argument("--points", type=int, default=100_000, help="at least so many, as many at each t")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of PyTorch; NumPy has one")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--cells", type=int, help="of the oracle's grid; its default otherwise")
    parser.add_argument("--solution", type=Path, default=SOLUTION, help="the file where the oracle's is kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "solvers.md", help="with markers for the tables")
    args = parser.parse_args()

    game, learnt = FourRooms(), load(args.runs, args.seed)
    args.solution.parent.mkdir(parents=True, exist_ok=True)
    model = Model(game, args.cells)
    solved = solve(game, cells=args.cells, cache=args.solution)
    nash = Grid(model.mesh, cast(Grid, solved.mean_field).masses)
    points = uniform(game, math.ceil(args.points / (game.horizon + 1)), np.random.default_rng(SEED))

    subjects = {solver: Subject(found, args.agents, points) for solver, found in learnt.items()}
    judged = {solver: judge(subject, model, nash, points) for solver, subject in subjects.items()}
    rows = [
        row | {"points": points.shape[0] * points.shape[1]} | judged[row["solver"]][row["density_by"]]
        for threads in args.threads
        for row in time_all(subjects, threads, args.repeats)
    ]
    tables.write(args.output, rows)
    for name, table in (("inference times", times_table(rows)), ("inference accuracy", accuracy_table(rows))):
        print(f"{table}\n")
        tables.fill(args.page, name, table, "inference.py")


if __name__ == "__main__":
    main()
