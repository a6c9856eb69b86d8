"""Tables and pictures of docs/solvers.md, from the figures and runs that benchmarks/solvers.py leaves."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tables
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from mfg_envs import load_equilibrium
from mfg_envs.equilibrium import solve
from mfg_envs.mean_field import MeanField

ROOT = Path(__file__).parent.parent
NAMES = {
    "dedafp_ppo": "DEDA-FP (PPO)",
    "dedafp_sac": "DEDA-FP (SAC)",
    "dafp_ppo": "Algorithm 2: average policy, no flow",
    "fp_ppo": "Algorithm 1: all best responses",
}
COLOURS = {"dedafp_ppo": "#0072B2", "dedafp_sac": "#56B4E9", "dafp_ppo": "#D55E00", "fp_ppo": "#009E73"}
TITLES = {
    "lq_v0": "linear-quadratic",
    "price_impact_v0": "price impact",
    "beach_bar_v0": "beach bar",
    "four_rooms_v0": "four rooms, entropy",
    "four_rooms_v0_congestion": "four rooms, congestion",
}
LOCAL = ("beach_bar_v0", "four_rooms_v0", "four_rooms_v0_congestion")  # games with interaction through the density
ERRORS = {  # as solvers log them
    "errors/best_response": "best response, eps_br",
    "errors/average_policy": "average policy, eps_sl",
    "errors/average_policy_reward": "average policy, D",
    "errors/flow": "flow, eps_cnf",
    "errors/flow_reward": "flow, D",
    "errors/crowd": "sampled crowd",
    "errors/crowd_reward": "sampled crowd, D",
    "errors/leak": "flow's leak",
}
TIMES = (5, 10, 20, 40)  # of the density pictures in the plane

Rows = list[dict[str, str]]


def write(results: Path, iterations: Path, runs: Path) -> None:
    """Everything that the CSVs and the finished runs give."""
    with results.open(newline="") as file:
        finished = list(csv.DictReader(file))
    with iterations.open(newline="") as file:
        judged = list(csv.DictReader(file))
    page = ROOT / "docs" / "solvers.md"
    tables.fill(page, "results", results_table(finished), "solvers.py")
    tables.fill(page, "equal time", equal_cost_table(judged, "seconds", "training, s"), "solvers.py")
    tables.fill(page, "equal steps", equal_cost_table(of_ppo(judged), "env_steps", "steps of agents"), "solvers.py")
    tables.fill(page, "errors", errors_table(judged), "solvers.py")
    tables.fill(ROOT / "README.md", "solvers", short_table(finished), "solvers.py")
    draw_exploitability(ROOT / "assets" / "solvers_exploitability.png", finished, judged)
    draw_errors(ROOT / "assets" / "solvers_errors.png", judged)
    for game in LOCAL:
        paths = {NAMES[solver]: runs / f"{game}__{solver}__1" / "equilibrium.pt" for solver in NAMES}
        found = {name: load_equilibrium(path) for name, path in paths.items() if path.is_file()}
        for played in [learnt.game for learnt in found.values()][:1]:
            assert played is not None
            exact = solve(played, cache=runs / f"{game}__oracle.npz", progress=True)
            crowds = {"the oracle's": exact.mean_field} | {name: learnt.mean_field for name, learnt in found.items()}
            draw = draw_line if played.dim == 1 else draw_plane
            draw(ROOT / "assets" / f"solvers_density_{game}.png", played, crowds)


def of(rows: Rows, solver: str, game: str) -> dict[str, Rows]:
    """The rows of a solver on a game, by seed."""
    found = defaultdict(list)
    for row in rows:
        if (row["solver"], row["game"]) == (solver, game):
            found[row["seed"]].append(row)
    return found


def of_ppo(rows: Rows) -> Rows:
    """Those of solvers with PPO, whose steps are alike: SAC learns from each many times."""
    return [row for row in rows if row["solver"] != "dedafp_sac"]


def numbers(rows: Rows, column: str) -> np.ndarray:
    """A column of figures."""
    return np.array([float(row[column]) for row in rows])


def spread(values: np.ndarray, form: str | None = None) -> str:
    """Mean ± standard deviation over seeds, where there are several; unless told, to three digits of the mean."""
    if form is None:
        form = f".{max(0, 2 - math.floor(math.log10(max(abs(values.mean()), 1e-9))))}f"
    return f"{values.mean():{form}}" + (f" ± {values.std(ddof=1):{form}}" if len(values) > 1 else "")


def results_table(finished: Rows) -> str:
    """A line for each solver on each game."""
    lines = [
        "| game | solver | seeds | iterations | exploitability | of doing nothing's | by play | training, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for game, title in TITLES.items():
        for solver, name in NAMES.items():
            rows = [row for rows in of(finished, solver, game).values() for row in rows]
            if rows:
                share = 100 * numbers(rows, "share_of_doing_nothing")
                lines.append(
                    f"| {title} | {name} | {len(rows)} | {rows[0]['iterations']} | "
                    f"{spread(numbers(rows, 'exploitability'))} | {spread(share)} % | "
                    f"{spread(numbers(rows, 'by_play'))} | {spread(numbers(rows, 'seconds'), '.0f')} |"
                )
    return "\n".join(lines)


def short_table(finished: Rows) -> str:
    """DEDA-FP alone."""
    lines = [
        "| game | doing nothing | DEDA-FP | of doing nothing's | training, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for game, title in TITLES.items():
        rows = [row for rows in of(finished, "dedafp_ppo", game).values() for row in rows]
        if rows:
            exploitability, share = numbers(rows, "exploitability"), numbers(rows, "share_of_doing_nothing")
            lines.append(
                f"| {title} | {(exploitability / share).mean():.2f} | {spread(exploitability)} | "
                f"{100 * share.mean():.2g} % | {numbers(rows, 'seconds').mean():.0f} |"
            )
    return "\n".join(lines)


def equal_cost_table(judged: Rows, cost: str, unit: str) -> str:
    """Exploitability at the cost at which the cheapest run of a game ends, log-linear between judged iterations."""
    names = {solver: name for solver, name in NAMES.items() if any(row["solver"] == solver for row in judged)}
    lines = [f"| game | {unit} | " + " | ".join(names.values()) + " |", "|---|---:" + "|---:" * len(names) + "|"]
    for game in LOCAL:
        runs = {solver: of(judged, solver, game) for solver in names}
        ends = [numbers(rows, cost)[-1] for seeds in runs.values() for rows in seeds.values()]
        if not ends:
            continue
        cells = []
        for seeds in runs.values():
            at_end = [
                np.exp(np.interp(min(ends), numbers(rows, cost), np.log(numbers(rows, "exploitability"))))
                for rows in seeds.values()
            ]
            cells.append(spread(np.array(at_end)) if at_end else "")
        lines.append(f"| {TITLES[game]} | {min(ends):,.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def errors_table(judged: Rows) -> str:
    """The error terms at the last judged iteration, means over seeds."""
    lines = [
        "| game | solver | exploitability | eps_br | average policy, eps_sl | D | crowd, eps_cnf | D | flow's leak |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for game, title in TITLES.items():
        for solver, name in NAMES.items():
            last = [rows[-1] for rows in of(judged, solver, game).values()]
            if not last:
                continue
            crowd = "crowd" if last[0]["errors/crowd"] else "flow"
            columns = {
                "exploitability": ".2g",
                "errors/best_response": ".2g",
                "errors/average_policy": ".1%",
                "errors/average_policy_reward": ".2g",
                f"errors/{crowd}": ".1%",
                f"errors/{crowd}_reward": ".2g",
                "errors/leak": ".1%",
            }
            cells = [
                f"{numbers(last, column).mean():{form}}".replace("%", " %") if last[0][column] else ""
                for column, form in columns.items()
            ]
            lines.append(f"| {title} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_exploitability(path: Path, finished: Rows, judged: Rows) -> None:
    """Against training time and steps of agents: mean and standard deviation over seeds."""
    figure, axes = plt.subplots(2, len(TITLES), figsize=(4 * len(TITLES), 7.2), layout="constrained", squeeze=False)
    for column, (game, title) in enumerate(TITLES.items()):
        for solver, name in NAMES.items():
            seeds = list(of(judged, solver, game).values())
            if not seeds:
                continue
            common = set.intersection(*({row["iteration"] for row in rows} for rows in seeds))
            seeds = [[row for row in rows if row["iteration"] in common] for rows in seeds]
            logs = np.log([numbers(rows, "exploitability") for rows in seeds])
            low, middle, high = (np.exp(logs.mean(axis=0) + s * logs.std(axis=0)) for s in (-1, 0, 1))
            for axis, cost in zip(axes[:, column], ("seconds", "env_steps"), strict=True):
                at = np.mean([numbers(rows, cost) for rows in seeds], axis=0)
                axis.semilogy(at, middle, "o-", ms=3, color=COLOURS[solver], label=name)
                axis.fill_between(at, low, high, color=COLOURS[solver], alpha=0.2, lw=0)
        for axis in axes[:, column]:
            rows = [row for row in finished if row["game"] == game]
            if rows:
                nothing = float(rows[0]["exploitability"]) / float(rows[0]["share_of_doing_nothing"])
                axis.axhline(nothing, color="#999999", ls=":", label="doing nothing")
                axis.axhline(nothing / 100, color="#999999", ls="--", lw=0.8, label="1 % of it")
            axis.grid(alpha=0.3, which="both")
            axis.set_xlim(left=0)
        axes[0, column].set(title=title, xlabel="training, seconds")
        axes[1, column].set(xlabel="steps of agents")
    for axis in axes[:, 0]:
        axis.set_ylabel("exploitability")
    legend_below(figure)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def legend_below(figure: Any) -> None:
    """One legend for all panels."""
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def draw_errors(path: Path, judged: Rows) -> None:
    """The error terms of DEDA-FP's first seed over iterations: in units of return, and in total variation."""
    figure, axes = plt.subplots(2, len(TITLES), figsize=(4 * len(TITLES), 7.2), layout="constrained", squeeze=False)
    styles = {
        "errors/best_response": ("#0072B2", "o"),
        "errors/average_policy_reward": ("#D55E00", "s"),
        "errors/flow_reward": ("#009E73", "^"),
        "errors/average_policy": ("#D55E00", "s"),
        "errors/flow": ("#009E73", "^"),
        "errors/leak": ("#CC79A7", "v"),
    }
    for column, (game, title) in enumerate(TITLES.items()):
        rows = of(judged, "dedafp_ppo", game).get("1", [])
        for name, (colour, marker) in styles.items():
            if rows and rows[0][name] and numbers(rows, name).any():
                axis = axes[int(name in ("errors/average_policy", "errors/flow", "errors/leak")), column]
                axis.semilogy(
                    numbers(rows, "iteration"),
                    numbers(rows, name),
                    marker + "-",
                    ms=3,
                    lw=1,
                    color=colour,
                    label=ERRORS[name],
                )
        if rows:
            axes[0, column].semilogy(
                numbers(rows, "iteration"), numbers(rows, "exploitability"), color="black", lw=2, label="exploitability"
            )
        axes[0, column].set_title(title)
        for axis in axes[:, column]:
            axis.grid(alpha=0.3, which="both")
            axis.set_xlabel("iteration of fictitious play")
    axes[0, 0].set_ylabel("units of return")
    axes[1, 0].set_ylabel("share of the crowd, mean over t")
    legend_below(figure)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_line(path: Path, game: Any, crowds: dict[str, MeanField]) -> None:
    """Densities in space and time of a game on the line."""
    x = np.linspace(game.floor.low[0], game.floor.high[0], 401)[1:-1]
    density = {
        name: np.exp([mu.at(t).log_density(x[:, None]) for t in range(game.horizon + 1)]) for name, mu in crowds.items()
    }
    most = next(iter(density.values()))[1:].max()
    figure, axes = plt.subplots(1, len(crowds), figsize=(3.6 * len(crowds), 3.4), layout="constrained", sharey=True)
    for axis, (name, image) in zip(axes, density.items(), strict=True):
        drawn = axis.imshow(
            image.T, origin="lower", aspect="auto", vmin=0, vmax=most, extent=(0, game.horizon, x[0], x[-1])
        )
        axis.set(title=name, xlabel="t")
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("x")
    figure.colorbar(drawn, ax=axes, label="density")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_plane(path: Path, game: Any, crowds: dict[str, MeanField]) -> None:
    """Densities in the plane, a crowd a row, on one scale of colours; the walls are outlined, to show what leaks."""
    cells = 160
    lines = [np.linspace(low, high, cells + 1) for low, high in zip(game.floor.low, game.floor.high, strict=True)]
    points = np.stack(np.meshgrid(*((line[1:] + line[:-1]) / 2 for line in lines), indexing="ij"), axis=-1)
    extent = (game.floor.low[0], game.floor.high[0], game.floor.low[1], game.floor.high[1])
    size = (2.6 * len(TIMES) + 1.4, 2.6 * len(crowds) + 0.3)
    figure, axes = plt.subplots(len(crowds), len(TIMES), figsize=size, layout="compressed", squeeze=False)
    for row, (name, crowd) in zip(axes, crowds.items(), strict=True):
        for axis, t in zip(row, TIMES, strict=True):
            density = np.exp(crowd.at(t).log_density(points.reshape(-1, 2))).reshape(cells, cells)
            shown = np.maximum(density.T, 1e-9)  # so that there is a logarithm
            image = axis.imshow(shown, origin="lower", extent=extent, cmap="magma", norm=LogNorm(0.01, 5))
            for low, high in game.floor.walls:
                axis.add_patch(Rectangle(low, *np.subtract(high, low), fill=False, color="#bbbbbb"))
            axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    for axis, t in zip(axes[0], TIMES, strict=True):
        axis.set_title(f"t = {t}")
    figure.colorbar(image, ax=axes, label="density of the crowd", extend="both", shrink=0.5)
    figure.savefig(path, dpi=80)
    plt.close(figure)
