"""From the mean field to N players: what it costs to be finite.

    python benchmarks/n_players.py

For each game and each N, everybody plays the equilibrium of the mean field game, as the oracle finds it. A row has what
one of them gains by leaving it (`n_player_gap`), how far the return is from that in the mean field, and how far the
crowd is from the mean field: the Wasserstein-1 distance from the oracle's law, averaged over 11 times from 0 to T and
over several runs; beside it that of N independent draws from this law. The row with `inf` agents has the exploitability
of the policy by play, which is what remains of the gap. Two more rows plan the deviation on a coarser grid.

Writes benchmarks/results/n_players.csv and assets/n_players.png. Rows that are in the CSV are not measured again, so
what was interrupted goes on; solutions of the oracle are kept in the folder --cache. One thread; under 15 minutes.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables

from mfg_envs.envs import simulate
from mfg_envs.equilibrium import Equilibrium, best_response, n_player_gap, solve
from mfg_envs.games import BeachBar, FourRooms, Game, LinearQuadratic
from mfg_envs.mean_field import wasserstein

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "n_players.csv"
PICTURE = ROOT / "assets" / "n_players.png"
CACHE = ROOT / "runs" / "n_players"
TIMES = 11  # from 0 to T, at which distances are taken
AGENTS = (2, 4, 10, 30, 100, 300, 1000, 3000, 10_000)
# the game, and what `solve` gets; deviations are planned on the same grid
GAMES: dict[str, tuple[Game, dict[str, Any]]] = {
    "LinearQuadratic": (LinearQuadratic(), {}),
    "BeachBar": (BeachBar(), {"iterations": 300, "tolerance": 2e-4}),
    "FourRooms, entropy": (FourRooms(), {"iterations": 60}),
    "FourRooms, congestion": (FourRooms(crowd="congestion"), {"iterations": 30}),
}
FIELDS = (
    *("game", "agents", "cells", "crowds", "gap", "gap_stderr", "below_noise", "return", "mean_field_return"),
    *("difference", "difference_stderr", "w1_agents", "w1_agents_stderr", "w1_draws", "w1_draws_stderr", "seconds"),
)
CHECKS = (("FourRooms, entropy", 100, 40), ("FourRooms, congestion", 100, 40))  # game, agents, cells
Key = tuple[str, float, str]  # game, agents, and cells in a check


def solution(name: str, cache: Path) -> Equilibrium:
    """The equilibrium, from the cache if it is there."""
    game, settings = GAMES[name]
    if not settings:
        return solve(game)
    cache.mkdir(parents=True, exist_ok=True)
    return solve(game, cache=cache / f"{name.replace(', ', '_')}.npz", progress=True, **settings)


def distances(game: Game, nash: Equilibrium, agents: int, runs: int) -> np.ndarray:
    """Wasserstein-1 distance from the mean field, averaged over times, of crowds and of draws from it: (2, runs)."""
    if game.dynamics_reads:
        crowds = np.stack([simulate(game, nash.policy, None, agents, seed).states for seed in range(runs)], axis=1)
    else:  # agents do not notice each other, so those of all runs can go together, whatever the crowd
        together = simulate(game, nash.policy, nash.mean_field, runs * agents, seed=0).states
        crowds = together.reshape(len(together), runs, agents, -1)
    rng, total = np.random.default_rng(1), np.zeros((2, runs))
    times = np.linspace(0, game.horizon, TIMES).round().astype(int)
    for t in times.tolist():
        mu = nash.mean_field.at(t)
        draws = mu.sample(runs * agents, rng).reshape(crowds[t].shape)
        total += [wasserstein(crowds[t], mu), wasserstein(draws, mu)]
    return total / len(times)


def crowds_of(game: Game, agents: int) -> int:
    """How many crowds a deviation is judged in: fewer if many agents, or very few in the plane, make them dear."""
    return int(np.clip(400_000 // agents, 50, 4096 if game.dim == 1 else min(512, 64 * agents)))


def gap_figures(name: str, agents: int, nash: Equilibrium, **grid: int) -> dict[str, Any]:
    """What one of N gains, and the difference of returns."""
    game, settings = GAMES[name]
    sampled: dict[str, Any] = {}
    if settings:
        sampled = {"crowds": crowds_of(game, agents), "mean_field": nash.mean_field}
    gap = n_player_gap(game, nash.policy, agents, **sampled, **grid)
    return {
        "crowds": sampled.get("crowds", ""),
        "gap": gap.value,
        "gap_stderr": gap.stderr,
        "below_noise": gap.below_noise,
        "return": gap.policy_return,
        "mean_field_return": gap.mean_field_return,
        "difference": gap.difference,
        "difference_stderr": gap.difference_stderr,
    }


def distance_figures(name: str, agents: int, nash: Equilibrium) -> dict[str, Any]:
    """Means over runs of the distances."""
    game, _ = GAMES[name]
    runs = int(np.clip(100_000 // agents, 10, 200 if game.dim == 1 else 100))
    both = distances(game, nash, agents, runs)
    mean, stderr = both.mean(axis=1).tolist(), (both.std(axis=1, ddof=1) / runs**0.5).tolist()
    return {"w1_agents": mean[0], "w1_agents_stderr": stderr[0], "w1_draws": mean[1], "w1_draws_stderr": stderr[1]}


def limit_figures(name: str, nash: Equilibrium) -> dict[str, Any]:
    """What is gained in the mean field, by play with common noise."""
    game, _ = GAMES[name]
    best, kept = (
        simulate(game, policy, nash.mean_field, 50_000, seed=0).returns
        for policy in (best_response(game, nash.mean_field), nash.policy)
    )
    gap, stderr = float((best - kept).mean()), float((best - kept).std(ddof=1) / len(best) ** 0.5)
    return {"gap": gap, "gap_stderr": stderr, "below_noise": gap < 2 * stderr}


def measure(key: Key, nash: Equilibrium) -> dict[str, Any]:
    """One row of the table."""
    name, agents, cells = key
    start = time.process_time()
    if agents == math.inf:
        figures = limit_figures(name, nash)
    elif cells:
        figures = gap_figures(name, int(agents), nash, cells=int(cells))
    else:
        figures = gap_figures(name, int(agents), nash) | distance_figures(name, int(agents), nash)
    row = dict(zip(("game", "agents", "cells"), key, strict=True)) | figures
    return dict.fromkeys(FIELDS, "") | row | {"seconds": time.process_time() - start}


def read(path: Path) -> dict[Key, dict[str, Any]]:
    """The rows that are there."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(row["game"], float(row["agents"]), row["cells"]): row for row in csv.DictReader(file)}


def slopes(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Powers of N, by least squares in the logarithms from N = 300 on, of what is clear of noise in rows of one game.

    Of the gap, what it is more than the exploitability.
    """
    rest = sum(float(row["gap"]) for row in rows if float(row["agents"]) == math.inf)
    many = [row for row in rows if 300 <= float(row["agents"]) < math.inf]
    found = {}
    for key, less in (("gap", rest), ("difference", 0.0), ("w1_agents", 0.0), ("w1_draws", 0.0)):
        clear = [row for row in many if abs(float(row[key]) - less) > 2 * float(row[f"{key}_stderr"])]
        if len(clear) > 1:
            values = [math.log(abs(float(row[key]) - less)) for row in clear]
            found[key] = float(np.polyfit([math.log(float(row["agents"])) for row in clear], values, 1)[0])
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gap, difference of returns and distances over N, with the slopes 1/N and 1/sqrt(N)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(GAMES, ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    for name, colour in colours.items():
        mine = sorted((row for row in rows if row["game"] == name), key=lambda row: float(row["agents"]))
        finite = [row for row in mine if math.isfinite(float(row["agents"]))]
        if not finite:
            continue

        def column(key: str, finite: list[Mapping[str, Any]] = finite) -> np.ndarray:
            return np.array([float(row[key]) for row in finite])

        agents = column("agents")
        for axes, key in zip(panels, ("gap", "difference"), strict=False):
            value, stderr = abs(column(key)), column(f"{key}_stderr")
            clear = (column(key) if key == "gap" else value) >= 2 * stderr
            axes.errorbar(agents[clear], value[clear], 2 * stderr[clear], color=colour, marker="o", ms=4, label=name)
            axes.plot(agents[~clear], 2 * stderr[~clear], color=colour, marker="v", ls="none", mfc="none")
        for row in mine:
            if float(row["agents"]) == math.inf and float(row["gap"]) > 2 * float(row["gap_stderr"]):
                panels[0].axhline(float(row["gap"]), color=colour, ls=":", lw=1)
        panels[2].errorbar(agents, column("w1_agents"), 2 * column("w1_agents_stderr"), color=colour, marker="o", ms=4)
        panels[2].plot(agents, column("w1_draws"), color=colour, marker="x", ls="--", lw=1)
    titles = (
        "gain of leaving the equilibrium\n(dotted: exploitability; open: below noise, 2 stderr)",
        "|J_N - J|, the return's distance\nfrom that in the mean field",
        "Wasserstein-1 distance from the mean field\n(dashed: independent draws)",
    )
    for axes, title, starts in zip(panels, titles, ((2e-3, 0.6), (0.1, 1.0), (None, 0.5)), strict=True):
        limits = np.array(AGENTS, dtype=float)[[0, -1]]
        for start, power, style in zip(starts, (1, 0.5), ("-", "-."), strict=True):
            if start is not None:
                slope = "1/N" if power == 1 else "1/√N"
                axes.plot(limits, start * (limits / limits[0]) ** -power, color="0.6", ls=style, lw=1, label=slope)
        axes.set(xscale="log", yscale="log", xlabel="N", title=title)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Measure what is missing, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--agents", type=int, nargs="+", default=list(AGENTS), help="numbers of agents")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the oracle's solutions")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to go on with and write")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the PNG file to write")
    args = parser.parse_args()

    rows = read(args.output)
    print("| game | N | gap | J_N | J_N - J | W1, agents | W1, draws | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in args.games:
        wanted: list[Key] = [(name, float(agents), "") for agents in sorted(args.agents)]
        if GAMES[name][1]:
            wanted.append((name, math.inf, ""))
        wanted += [(game, float(agents), str(cells)) for game, agents, cells in CHECKS if game == name]
        nash = None if all(key in rows for key in wanted) else solution(name, args.cache)
        for key in wanted:
            if key not in rows:
                assert nash is not None
                rows[key] = measure(key, nash)
                tables.write(args.output, list(rows.values()))
            print(markdown(rows[key]), flush=True)
    print("\n| game | gap - exploitability | J_N - J | W1, agents | W1, draws |\n|---|---:|---:|---:|---:|")
    measured = [row for row in rows.values() if not row["cells"]]
    for name in args.games:
        powers = slopes([row for row in measured if row["game"] == name])
        shown = [
            f"{powers[key]:.2f}" if key in powers else "" for key in ("gap", "difference", "w1_agents", "w1_draws")
        ]
        print(f"| {' | '.join([name, *shown])} |")
    draw(measured, args.picture)


def markdown(row: Mapping[str, Any]) -> str:
    """A line of the table."""

    def figure(key: str, digits: int) -> str:
        if row[key] == "":
            return ""
        value, stderr = float(row[key]), float(row[f"{key}_stderr"])
        if stderr == 0:
            return f"{value:.3g}"
        return f"{value:.{digits}f} ± {stderr:.{digits}f}"

    gap = figure("gap", 4) + (" (below noise)" if str(row["below_noise"]) == "True" else "")
    earned = f"{float(row['return']):.3f}" if row["return"] != "" else ""
    name = row["game"] + (f", deviation on {row['cells']} cells" if row["cells"] else "")
    cells = [name, f"{float(row['agents']):,.0f}", gap, earned, figure("difference", 4)]
    cells += [figure("w1_agents", 4), figure("w1_draws", 4), f"{float(row['seconds']):.0f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
