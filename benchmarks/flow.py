"""How near a flow gets to a crowd, by how it is built and fitted: docs/dedafp_ppo.md.

    python benchmarks/flow.py

The crowd is that of the average policy that DEDA-FP has learnt in the exploring rooms, seed 1 (of
benchmarks/solvers.py), pushed forward on the oracle's grid of 40 cells. Each flow starts untrained and is fitted in
`--iterations` iterations as the solver does it: agents are drawn anew, and so many steps are made. Variants differ from
the solver's defaults in one thing each. Figures are means over the last five iterations: errors/flow,
errors/flow_reward and errors/leak of the solver, seconds of the fit and of the table, one PyTorch thread.

Writes benchmarks/results/flow.csv and the table between its markers. Some two minutes.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables
import torch
from tqdm import tqdm

from mfg_envs import load_equilibrium
from mfg_envs.envs import Policy, simulate
from mfg_envs.equilibrium.grid import Model
from mfg_envs.games import FourRooms
from mfg_envs.mean_field import Flow, MeanField

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "solvers"))
solver: Any = import_module("dedafp_ppo")

LEARNT = ROOT / "runs" / "benchmark" / "four_rooms_v0__dedafp_ppo__1" / "equilibrium.pt"
RESULTS = ROOT / "benchmarks" / "results" / "flow.csv"
ARGS = solver.defaults("four_rooms_v0")
CELLS = 40
COUNTED = 5  # the last iterations


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a flow is built and fitted; by default as in the solver."""

    built: dict[str, int] = dataclasses.field(default_factory=dict)  # arguments of Flow that are others
    averaged: bool = True
    steady: bool = True
    learning_rate: float = ARGS.flow_learning_rate
    steps: int = ARGS.flow_steps


FIRST = Variant({"transforms": 4, "waves": 0, "bins": 8}, averaged=False, steady=False, learning_rate=2e-3, steps=80)
VARIANTS = {
    "as in the solver": Variant(),
    "no waves": Variant({"waves": 0}),
    "8 bins": Variant({"bins": 8}),
    "4 transformations": Variant({"transforms": 4}),
    "standardised anew in each iteration": Variant(steady=False),
    "not averaged; Adam anew in each iteration, annealed": Variant(averaged=False),
    "the first flow: all of these, 80 steps from a rate of 2e-3": FIRST,
}


def fit(variant: Variant, flow: Flow, learner: Flow, optimizer: Any, paths: torch.Tensor, done: int) -> None:
    """The steps of one iteration, after `done` of them, on paths (T+1, N, d)."""
    for step in range(variant.steps):
        if not variant.averaged:
            optimizer.param_groups[0]["lr"] = variant.learning_rate * (1 - step / variant.steps)
        t = torch.randint(len(paths), (ARGS.flow_batch,))
        n = torch.randint(paths.shape[1], (ARGS.flow_batch,))
        optimizer.zero_grad()
        (-learner.log_prob(t, paths[t, n]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), ARGS.max_grad_norm)
        optimizer.step()
        weight = 1 / (1 + solver.MEMORY * (done + step)) if variant.averaged else 1.0
        with torch.no_grad():
            for average, newest in zip(flow.parameters(), learner.parameters(), strict=True):
                average.lerp_(newest, weight)


def measure(variant: Variant, policy: Policy, model: Model, crowd: MeanField, iterations: int) -> dict[str, float]:
    """The figures of a variant, means over the last iterations."""
    game = model.game
    torch.manual_seed(1)
    arguments = {"bins": ARGS.flow_bins} | variant.built
    flow = Flow(game.dim, game.horizon, game.action_dim, **arguments).eval()
    learner = copy.deepcopy(flow)
    optimizer = torch.optim.Adam(learner.parameters(), lr=variant.learning_rate)
    rows = []
    for iteration in range(iterations):
        played = simulate(game, policy, num_agents=ARGS.flow_agents, seed=iteration, antithetic=True)
        start = time.process_time()
        for module in (flow, learner):
            module.standardise(played.states, played.actions, 2 / (iteration + 2) if variant.steady else 1.0)
        if not variant.averaged:
            optimizer = torch.optim.Adam(learner.parameters(), lr=variant.learning_rate)
        paths = torch.as_tensor(played.states, dtype=torch.float32)
        fit(variant, flow, learner, optimizer, paths, iteration * variant.steps)
        fitted = time.process_time()
        if iteration >= iterations - COUNTED:
            table, leak = solver.tabulate(flow, game)
            tabulated = time.process_time()
            rows.append(
                {
                    "tv": model.total_variation(table, crowd),
                    "reward_distance": model.reward_distance(table, crowd),
                    "leak": leak,
                    "fit_s": fitted - start,
                    "table_s": tabulated - fitted,
                }
            )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    """Measure all variants, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learnt", type=Path, default=LEARNT, help="the equilibrium.pt whose average policy plays")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "dedafp_ppo.md", help="with markers for the table")
    options = parser.parse_args()
    if not options.learnt.is_file():
        sys.exit(f"there is no {options.learnt}; python benchmarks/solvers.py makes it")
    if options.iterations < COUNTED:
        sys.exit(f"--iterations must be at least {COUNTED}, got {options.iterations}")
    torch.set_num_threads(1)
    learnt, game = load_equilibrium(options.learnt), FourRooms()
    if learnt.game != game:
        sys.exit(f"{options.learnt} must be of {game}, it is of {learnt.game}")
    model = Model(game, CELLS)
    crowd, _ = model.flow(learnt.policy, seed=0)

    kernels = simulate(game, learnt.policy, num_agents=10_000, seed=0, antithetic=True).mean_field(game)
    rows: list[dict[str, Any]] = [
        {
            "variant": "10,000 agents with the kernel density, for comparison",
            "tv": model.total_variation(kernels, crowd),
            "reward_distance": model.reward_distance(kernels, crowd),
            "leak": 0.0,
            "fit_s": "",
            "table_s": "",
        }
    ]
    for name, variant in tqdm(VARIANTS.items(), unit="flow"):
        rows.insert(-1, {"variant": name, **measure(variant, learnt.policy, model, crowd, options.iterations)})
    tables.write(options.output, rows)
    lines = ["| flow | total variation | D | leak | fit, s | table, s |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        seconds = " | ".join(f"{row[key]:.2f}" if row[key] != "" else "" for key in ("fit_s", "table_s"))
        lines.append(
            f"| {row['variant']} | {row['tv']:.2%} | {row['reward_distance']:.3f} | {row['leak']:.1%} | {seconds} |"
        )
    print("\n".join(lines).replace("%", " %"))
    tables.fill(options.page, "flows", "\n".join(lines).replace("%", " %"), "flow.py")


if __name__ == "__main__":
    main()
