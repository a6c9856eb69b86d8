"""The returns and the crowd of the four rooms: what the grid says at several widths of its cells, and what play says.

    python benchmarks/four_rooms.py

The solution on the finest grid is played by many agents in the continuous game, as is doing nothing. Their return in
each other's crowd is then read in two ways which err to known sides where the reward is the log of a density:

- in the crowd's histogram, which the agents themselves made: too low, by the noise of the histogram (`histogram`; the
  column `without noise` takes out what the noise costs, twice the return of all less the mean of the two halves');
- in the crowd of the grid, which is not quite theirs: too high, by the relative entropy of the two (`grid's crowd`).

Prints Markdown tables and writes benchmarks/results/four_rooms.csv. One thread; some twenty minutes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables

from mfg_envs.envs import simulate
from mfg_envs.equilibrium import grid
from mfg_envs.games import FourRooms
from mfg_envs.mean_field import Grid
from mfg_envs.mean_field.grid import Mesh

RESULTS = Path(__file__).parent / "results" / "four_rooms.csv"
ITERATIONS = {"entropy": 80, "congestion": 15}
ROOMS = ("start", "right", "above", "far")


def idle(t: int, x: np.ndarray) -> np.ndarray:
    """Stay, but for the noise."""
    return np.zeros_like(x)


class Histogram:
    """The law of points, as the densities of cells."""

    def __init__(self, mesh: Mesh, x: np.ndarray) -> None:
        self.mesh = mesh
        self.density = np.bincount(mesh.locate(x)[0], minlength=len(mesh)) / len(x) / mesh.volume

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density of the cells of points: (n, d) -> (n,)."""
        with np.errstate(divide="ignore"):
            return np.log(self.density[self.mesh.locate(x)[0]])


def returns_in_histogram(game: FourRooms, mesh: Mesh, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Mean return of agents in their own histogram: of all, of the first and of the second half, (3,)."""
    half = states.shape[1] // 2
    total = np.zeros(3)
    for i, rows in enumerate((slice(None), slice(half), slice(half, None))):
        for t in range(game.horizon):
            x, a = states[t, rows], actions[t, rows]
            total[i] += game.reward(t, x, a, Histogram(mesh, x)).mean()  # type: ignore[arg-type]
    return total


def rooms(x: np.ndarray, mass: np.ndarray) -> list[float]:
    """Mass of each quarter of the square: points (n, 2) with their masses (n,)."""
    right, above = x[:, 0] > 0, x[:, 1] > 0
    return [float(mass[(right == r) & (above == a)].sum()) for a in (False, True) for r in (False, True)]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crowds", nargs="+", default=list(ITERATIONS), choices=list(ITERATIONS))
    parser.add_argument("--cells", nargs="+", type=int, default=[40, 60, 80])
    parser.add_argument("--iterations", type=int, help="of fictitious play; the defaults of this script otherwise")
    parser.add_argument("--agents", type=int, default=600_000)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    args = parser.parse_args()

    records: list[dict[str, str | float]] = []

    def record(crowd: str, quantity: str, where: str, value: float) -> None:
        records.append({"crowd": crowd, "quantity": quantity, "where": where, "value": float(value)})
        print(f"{crowd:>10}  {quantity:<28} {where:<16} {value:9.4f}", flush=True)

    for name in args.crowds:
        game = FourRooms(crowd=name)
        for cells in args.cells:
            where, model = f"{cells} cells", grid.Model(game, cells)
            still, earned = model.flow(idle)
            record(name, "return of doing nothing", where, earned)
            best, value = model.respond(still)
            record(name, "gain over doing nothing", where, value - earned)
            solved = grid.solve(game, cells, iterations=args.iterations or ITERATIONS[name])
            assert isinstance(solved.mean_field, Grid)
            record(name, "return of the equilibrium", where, solved.value)
            record(name, "its exploitability", where, solved.exploitability)
            shares = rooms(solved.mean_field.mesh.centres, solved.mean_field.masses[-1])
            for room, share in zip(ROOMS, shares, strict=True):
                record(name, f"mass at T, {room}", where, share)
        mesh = Mesh(game.floor, args.cells[-1])
        for what, policy, crowd in (
            ("doing nothing", idle, still),
            ("the equilibrium", solved.policy, solved.mean_field),
        ):
            played = simulate(game, policy, crowd, args.agents, seed=0)
            record(name, f"return of {what}", "grid's crowd", played.returns.mean())
            record(name, f"return of {what}, stderr", "grid's crowd", played.returns.std() / args.agents**0.5)
            full, one, other = returns_in_histogram(game, mesh, played.states, played.actions)
            record(name, f"return of {what}", "histogram", full)
            record(name, f"return of {what}", "without noise", 2 * full - (one + other) / 2)
            if what == "doing nothing":
                gains = simulate(game, best, still, args.agents, seed=0).returns - played.returns
                record(name, "gain over doing nothing", "grid's crowd", gains.mean())
                record(name, "gain over doing nothing, stderr", "grid's crowd", gains.std() / args.agents**0.5)
            else:
                for room, share in zip(
                    ROOMS, rooms(played.states[-1], np.full(args.agents, 1 / args.agents)), strict=True
                ):
                    record(name, f"mass at T, {room}", "play", share)
            del played
    tables.write(args.output, records)


if __name__ == "__main__":
    main()
