"""How good the kernel density estimate of a crowd is, and what it costs.

    python benchmarks/density.py

For each law and number of agents, over several seeds: the L1 error (the integral of |estimate - truth|), the root
mean square over the agents of log(estimate + 1e-3) - log(truth + 1e-3) with the estimate from the other agents, which
is what the environments pay as reward; both also "at best", for the fixed bandwidth that does best in hindsight (of the
powers of sqrt(2), for the mean over the seeds); and the time to build the estimate and take it at every agent (one
thread, the operators in the cache, the best of repeats). Prints a Markdown table and writes
benchmarks/results/density.csv.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables

from mfg_envs.games.floor_plan import FloorPlan, cross_of_rooms
from mfg_envs.mean_field.density import KernelDensity

RESULTS = Path(__file__).parent / "results" / "density.csv"
EPS = 1e-3  # that the games add to a density before they take its logarithm
LINE = FloorPlan((-1.0,), (1.0,))
ROOMS = cross_of_rooms()
CELLS = {1: 4000, 2: 400}  # a side, of the grid that integrates the error; its cells are aligned with the walls


class Law(NamedTuple):
    """A distribution on a floor: its density, (n, d) -> (n,), and its sampler, (n, rng) -> (n, d)."""

    floor: FloorPlan
    density: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int, np.random.Generator], np.ndarray]


def quadrature(floor: FloorPlan) -> tuple[np.ndarray, float]:
    """The centres of the free cells of a fine grid, and the volume of a cell."""
    n = CELLS[floor.dim]
    axes = [low + (np.arange(n) + 0.5) / n * (high - low) for low, high in zip(floor.low, floor.high, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, floor.dim)
    return x[floor.contains(x)], math.prod(np.subtract(floor.high, floor.low)) / n**floor.dim


def mixture(floor: FloorPlan, components: list[tuple[float, tuple[float, ...], float]], reflected: bool) -> Law:
    """Gaussians (weight, mean, standard deviation), reflected by the border of a line or truncated to the floor."""
    weights, means, deviations = (np.array(a) for a in zip(*components, strict=True))

    def gaussians(x: np.ndarray) -> np.ndarray:
        squares = ((x[:, None, :] - means) ** 2).sum(axis=-1)
        return np.exp(-squares / (2 * deviations**2)) @ (weights / (2 * np.pi * deviations**2) ** (floor.dim / 2))

    points, volume = quadrature(floor)
    total = 1.0 if reflected else float(gaussians(points).sum() * volume)

    def density(x: np.ndarray) -> np.ndarray:
        if reflected:
            return gaussians(x) + gaussians(-2 - x) + gaussians(2 - x)
        return gaussians(x) / total

    def sample(n: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(weights), n if reflected else 4 * n + 100, p=weights)
        step = deviations[chosen, None] * rng.normal(size=(len(chosen), floor.dim))
        if reflected:
            return floor.reflect(means[chosen], step)
        x = means[chosen] + step
        return x[floor.contains(x)][:n]

    return Law(floor, density, sample)


def uniform(floor: FloorPlan) -> Law:
    """The uniform distribution on the free area."""

    def sample(n: int, rng: np.random.Generator) -> np.ndarray:
        x = rng.uniform(floor.low, floor.high, (2 * n + 100, floor.dim))
        return x[floor.contains(x)][:n]

    return Law(floor, lambda x: np.full(len(x), 1 / floor.free_area), sample)


LAWS = {
    "1-D, normal(-0.6, 0.1), reflected": mixture(LINE, [(1.0, (-0.6,), 0.1)], reflected=True),
    "1-D, two bumps": mixture(LINE, [(0.5, (-0.5,), 0.1), (0.5, (0.5,), 0.2)], reflected=True),
    "four rooms, uniform": uniform(ROOMS),
    "four rooms, room by room": mixture(
        ROOMS,
        [(0.4, (-0.6, -0.6), 0.15), (0.3, (0.5, -0.4), 0.2), (0.2, (-0.4, 0.6), 0.12), (0.1, (0.6, 0.5), 0.25)],
        reflected=False,
    ),
}


def microseconds(call: Callable[[], object], budget: float = 0.3) -> float:
    """Time of one call: the best of as many as the budget, in seconds, allows."""
    call()
    best, end = math.inf, time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best


def measure(name: str, n: int, seeds: int) -> dict[str, str | int | float]:
    """One row of the table."""
    law = LAWS[name]
    points, volume = quadrature(law.floor)
    truth = law.density(points)
    crowds = [law.sample(n, np.random.default_rng(seed)) for seed in range(seeds)]

    def errors(bandwidth: float | None) -> np.ndarray:
        """Bandwidth in use, L1 error, RMS error of the log density: (seeds, 3)."""
        table = []
        for x in crowds:
            estimate = KernelDensity(x, law.floor, bandwidth)
            log_error = np.log(estimate.leave_one_out() + EPS) - np.log(law.density(x) + EPS)
            l1 = abs(estimate.density(points) - truth).sum() * volume
            table.append((estimate.bandwidth, l1, math.sqrt((log_error**2).mean())))
        return np.array(table)

    chosen = errors(None)
    fixed = np.array([errors(2 ** (-k / 2)).mean(axis=0) for k in range(16 if law.floor.dim == 1 else 12)])
    return {
        "law": name,
        "agents": n,
        "seeds": seeds,
        "bandwidth": float(chosen[:, 0].mean()),
        "l1_error": float(chosen[:, 1].mean()),
        "l1_error_std": float(chosen[:, 1].std()),
        "l1_error_best": float(fixed[:, 1].min()),
        "log_rms": float(chosen[:, 2].mean()),
        "log_rms_std": float(chosen[:, 2].std()),
        "log_rms_best": float(fixed[:, 2].min()),
        "microseconds": microseconds(lambda: KernelDensity(crowds[0], law.floor).leave_one_out()),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--agents", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000], help="numbers of agents"
    )
    parser.add_argument("--seeds", type=int, default=20, help="crowds drawn for each row")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    args = parser.parse_args()

    print("| law | agents | bandwidth | L1 error | at best | RMS error of the log density | at best | cost, µs |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = []
    for name in LAWS:
        for n in args.agents:
            row = measure(name, n, args.seeds)
            rows.append(row)
            print(
                f"| {name} | {n:,} | {row['bandwidth']:.3f} "
                f"| {row['l1_error']:.3f} ± {row['l1_error_std']:.3f} | {row['l1_error_best']:.3f} "
                f"| {row['log_rms']:.3f} ± {row['log_rms_std']:.3f} | {row['log_rms_best']:.3f} "
                f"| {row['microseconds']:,.0f} |",
                flush=True,
            )
    tables.write(args.output, rows)


if __name__ == "__main__":
    main()
