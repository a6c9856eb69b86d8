"""The equilibria of the games in figures and pictures: docs/equilibria.md.

    python benchmarks/equilibria.py

Solves each game in closed form or on a grid, judges what it found on the grid and by play, and sets it beside figures
from independent programs. Writes benchmarks/results/equilibria.csv, assets/equilibrium_<game>.png, and the tables of
docs/equilibria.md between their markers; the words there are by hand. Solutions are kept in runs/equilibria/, in a
folder for each state of the package's code, so that another run only judges. One thread; some minutes a game.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tables
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from mfg_envs.envs import Policy, Trajectories, simulate
from mfg_envs.equilibrium import AffinePolicy, Equilibrium, best_response, exploitability, grid, solve
from mfg_envs.games import BeachBar, FourRooms, Game, LinearQuadratic, PriceImpact
from mfg_envs.mean_field import Gaussian, MeanField
from mfg_envs.mean_field.grid import Grid

ROOT = Path(__file__).parent.parent
SEED = 0
IDLE, EXACT, MIXTURE, MEAN = "doing nothing", "equilibrium", "mixture", "the mixture's mean action"
QUARTERS = ("start", "lower right", "upper left", "far")

# --- what is solved, and what others found ---------------------------------------------------------------------------


class Case(NamedTuple):
    """A game, how finely it is solved, and what is said of it.

    Attributes:
        game: the game.
        cells, iterations: of the grid, and of fictitious play on it; 0 for closed forms.
        unread: constants that its equations do not read.
        times, state, bounds: for games on the line, at which t the table has moments of the crowd, what a state is
            called, and between which bounds it is drawn.
    """

    game: Game
    cells: int = 0
    iterations: int = 0
    unread: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    state: str = "state x"
    bounds: tuple[float, float] = (-1.0, 1.0)


CASES = {
    "lq_v0": Case(LinearQuadratic(), times=(1, 5, 10, 20), bounds=(-2.0, 1.6)),
    "price_impact_v0": Case(PriceImpact(), times=(0, 5, 10, 19), state="inventory q", bounds=(-0.6, 2.0)),
    "beach_bar_v0": Case(BeachBar(), 400, 200, times=(10, 20, 40), state="position x"),
    "four_rooms_v0_entropy": Case(FourRooms(), 80, 60, ("c_x", "c_c", "alpha", "x_goal", "walls")),
    "four_rooms_v0_congestion": Case(FourRooms(crowd="congestion"), 80, 40, ("c_m", "eps", "walls")),
}


def at(what: str, t: int) -> str:
    """The name of a figure at one time."""
    return f"{what}, t = {t}"


def in_quarter(name: str) -> str:
    """The name of the mass of a quarter."""
    return f"mass at T, quarter: {name}"


def quarters_have(masses: Sequence[float], band: float) -> dict[str, tuple[float, float]]:
    """Masses of the four quarters by the names of the figures."""
    return {in_quarter(name): (mass, band) for name, mass in zip(QUARTERS, masses, strict=True)}


# From programs that share no code with this package: closed forms written again, a grid of 401 cells, and for the four
# rooms an 80 x 80 grid and play of its mixture. (value, band); where the band is 0, so many digits are given.
INDEPENDENT: dict[str, dict[str, tuple[float, float]]] = {
    "lq_v0": {
        f"return: {EXACT}": (-6.109642, 0),
        f"exploitability: {IDLE}": (18.04203, 0),
        at("gain K", 0): (1.922846, 0),
        at("offset k", 0): (-1.410487, 0),
        at("mean", 1): (-0.333333, 0),
        at("mean", 5): (0.736625, 0),
        at("mean", 10): (0.965312, 0),
        at("mean", 20): (0.998647, 0),
    },
    "price_impact_v0": {
        f"return: {EXACT}": (-1.492205, 0),
        f"exploitability: {IDLE}": (2.55359, 0),
        at("gain K", 0): (1.446454, 0),
        at("offset k", 0): (0.486791, 0),
        at("mean action", 0): (-1.933245, 0),
        at("mean action", 5): (-1.196198, 0),
        at("mean action", 10): (-0.749442, 0),
        at("mean action", 19): (-0.348732, 0),
    },
    "beach_bar_v0": {
        **dict.fromkeys((f"return: {MIXTURE}", f"return: {MEAN}"), (-2.0211, 0)),
        f"exploitability: {IDLE}": (7.04, 0),
        f"exploitability: {MIXTURE}": (0.00017, 0),
        at("mean", 10): (-0.157, 0),
        at("mean", 20): (0.185, 0),
        at("mean", 40): (0.317, 0),
        at("std", 10): (0.248, 0),
        at("std", 20): (0.329, 0),
        at("std", 40): (0.338, 0),
    },
    "four_rooms_v0_entropy": {
        **dict.fromkeys((f"return: {MIXTURE}", f"return: {MEAN}"), (0.645, 0.01)),
        f"exploitability: {IDLE}": (7.30, 0.03),
        "entropy of the crowd at T": (1.196, 0.006),
        **quarters_have((0.430, 0.232, 0.232, 0.105), 0.006),
    },
    "four_rooms_v0_congestion": {
        **dict.fromkeys((f"return: {MIXTURE}", f"return: {MEAN}"), (-12.03, 0.03)),
        f"exploitability: {IDLE}": (4.01, 0.02),
        **quarters_have((0.167, 0.190, 0.190, 0.454), 0),
    },
}


# --- solving ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Solution:
    """An equilibrium, and its policy as one action for each t and x.

    Attributes:
        nash: the equilibrium.
        policy: the exact one, or the mean action of those of the mixture's agents who are there.
        model: the grid; None for closed forms.
        spread: the standard deviation around that mean in each cell, (T, n); None for closed forms.
    """

    nash: Equilibrium
    policy: Policy
    model: grid.Model | None = None
    spread: np.ndarray | None = None


def fingerprint() -> str:
    """Of the code that solutions depend on."""
    code = hashlib.sha256()
    for room in ("games", "mean_field", "envs", "equilibrium"):
        for path in sorted((ROOT / "mfg_envs" / room).glob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()[:12]


def find(name: str, case: Case, folder: Path, cells: int) -> Solution:
    """Solve a game, or load what was solved: on so many cells, in closed form if they are 0."""
    if not cells:
        nash = solve(case.game)
        return Solution(nash, nash.policy)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"cells": cells, "iterations": case.iterations, "tolerance": 0.0}
    nash = solve(case.game, **settings, progress=True, cache=folder / f"{name}_{cells}.npz")
    model = grid.Model(case.game, cells)
    policy, spread = model.mean_policy(cast(grid.Mixture, nash.policy), nash.mean_field)
    return Solution(nash, policy, model, spread)


# --- figures ---------------------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A figure as computed, and as measured on agents who play; errors as the page explains them, None if unknown."""

    value: float
    error: float = 0.0
    play: float | None = None
    play_stderr: float | None = None


def idle(game: Game) -> AffinePolicy:
    """a = 0."""
    T, k, d = game.horizon, game.action_dim, game.dim
    return AffinePolicy(np.zeros((T, k, d)), np.zeros((T, k)))


def average(samples: np.ndarray) -> tuple[float, float]:
    """Mean of independent samples (n,), and its standard error."""
    return float(samples.mean()), float(samples.std(ddof=1) / len(samples) ** 0.5)


def judge_in_closed_form(game: Game, found: Solution, played: Trajectories) -> dict[str, Figure]:
    """Return and exploitability of doing nothing and of the equilibrium."""
    figures, nash, agents = {}, found.nash, played.states.shape[1]
    for label, policy in ((IDLE, idle(game)), (EXACT, nash.policy)):
        judged = exploitability(game, policy, agents, SEED)
        if label == EXACT:
            crowd, returns, value = nash.mean_field, played.returns, Figure(nash.value)
        else:
            crowd = simulate(game, policy, num_agents=agents, seed=SEED, antithetic=True).mean_field(game)
            returns, value = (
                simulate(game, policy, crowd, agents, SEED).returns,
                Figure(judged.policy_return, judged.stderr),
            )
        better = simulate(game, best_response(game, crowd).policy, crowd, agents, SEED).returns
        figures[f"return: {label}"] = Figure(*value[:2], *average(returns))
        figures[f"exploitability: {label}"] = Figure(judged.value, judged.stderr, *average(better - returns))
    return figures


def judge_on_the_grid(game: Game, found: Solution, coarse: Solution, played: Trajectories) -> dict[str, Figure]:
    """Return and exploitability of doing nothing, of the mixture and of its mean action."""
    assert found.model is not None
    assert coarse.model is not None
    figures, agents = {}, played.states.shape[1]
    for label, policy, coarsely in (
        (IDLE, idle(game), idle(game)),
        (MIXTURE, found.nash.policy, None),
        (MEAN, found.policy, coarse.policy),
    ):
        judged = grid.exploitability(game, policy, agents, SEED, found.model.mesh.cells)
        if coarsely is None:
            returns, coarse_return = played.returns, coarse.nash.value
        else:
            returns = simulate(game, policy, found.model.flow(policy)[0], agents, SEED).returns
            coarse_return = coarse.model.flow(coarsely)[1]
        moved = abs(judged.policy_return - coarse_return)
        figures[f"return: {label}"] = Figure(judged.policy_return, moved, *average(returns))
        figures[f"exploitability: {label}"] = Figure(judged.value, judged.resolution_error, judged.lower, judged.stderr)
    return figures


def moments(crowd: MeanField) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and standard deviations of states (T+1, d), and mean actions (T, k)."""
    assert isinstance(crowd, (Gaussian, Grid))
    assert crowd.mean_actions is not None
    if isinstance(crowd, Gaussian):
        variance = np.diagonal(crowd.covariances, axis1=1, axis2=2)
    else:
        variance = crowd.masses @ crowd.mesh.centres**2 - crowd.means**2
    return crowd.means, np.sqrt(variance), crowd.mean_actions


def spread_of_actions(found: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of the actions of all agents at each t, and of those in the same place: (T,) each.

    Of vectors: the root of the sum over coordinates of variances.
    """
    crowd = found.nash.mean_field
    if isinstance(crowd, Gaussian):
        K = cast(AffinePolicy, found.policy).K
        return np.sqrt(np.einsum("tij,tjk,tik->t", K, crowd.covariances[:-1], K)), np.zeros(len(K))
    assert isinstance(crowd, Grid)
    assert crowd.mean_actions is not None
    assert found.spread is not None
    mass, actions = crowd.masses[:-1], cast(grid.GridPolicy, found.policy).actions
    among_places = np.einsum("tn,tnk->t", mass, (actions - crowd.mean_actions[:, None]) ** 2)
    in_places = np.einsum("tn,tn->t", mass, found.spread**2)
    return np.sqrt(among_places + in_places), np.sqrt(in_places)


def quarters(x: np.ndarray) -> np.ndarray:
    """How much of each point is in each quarter, ordered as QUARTERS, the start lower left: x (n, 2) -> (4, n)."""
    upper = (1 + np.sign(x)) / 2  # a half on an axis
    return np.stack([abs(1 - i - upper[:, 0]) * abs(1 - j - upper[:, 1]) for j, i in product((0, 1), repeat=2)])


def rooms(game: FourRooms, x: np.ndarray) -> np.ndarray:
    """Whether each point is in each room, ordered as QUARTERS, or in a door: x (n, 2) -> (5, n)."""
    in_door = np.any(np.abs(x) < game.wall, axis=1)
    return np.vstack([quarters(x) * ~in_door, in_door])


def describe_line(found: Solution, times: Iterable[int]) -> dict[str, float]:
    """Moments of a crowd on the line, and the gains of an affine policy."""
    (mean, std, action), figures = moments(found.nash.mean_field), {}
    if isinstance(found.policy, AffinePolicy):
        figures[at("gain K", 0)], figures[at("offset k", 0)] = found.policy.K[0, 0, 0], found.policy.k[0, 0]
    for t in times:
        figures[at("mean", t)], figures[at("std", t)] = mean[t, 0], std[t, 0]
        if t < len(action):
            figures[at("mean action", t)] = action[t, 0]
    return figures


def describe_plane(game: FourRooms, found: Solution) -> dict[str, float]:
    """Where a crowd in the four rooms is at T."""
    crowd = cast(Grid, found.nash.mean_field)
    x, mass, figures = crowd.mesh.centres, crowd.masses[-1], {}
    if game.crowd == "entropy":
        figures["entropy of the crowd at T"] = -float(mass @ np.log(mass / crowd.mesh.volume))
    for name, inside in zip(QUARTERS, quarters(x), strict=True):
        figures[in_quarter(name)] = inside @ mass
    figures["mass at T in the doors"] = rooms(game, x)[-1] @ mass
    return figures


def measure(game: Game, played: Trajectories, times: Iterable[int]) -> dict[str, tuple[float, float]]:
    """The same on agents who played, each with its standard error; a density's entropy is not measured so."""
    figures = {}
    if isinstance(game, FourRooms):
        x = played.states[-1]
        for name, inside in zip(QUARTERS, quarters(x), strict=True):
            figures[in_quarter(name)] = average(inside)
        figures["mass at T in the doors"] = average(rooms(game, x)[-1])
    for t in times:
        x = played.states[t, :, 0]
        variance, error = average((x - x.mean()) ** 2)
        figures[at("mean", t)], figures[at("std", t)] = average(x), (variance**0.5, error / (2 * variance**0.5))
        if t < game.horizon:
            figures[at("mean action", t)] = average(played.actions[t, :, 0])
    return figures


def figures_of(case: Case, found: Solution, coarse: Solution | None, agents: int) -> dict[str, Figure]:
    """All figures of a game by name."""
    game = case.game

    def describe(solution: Solution) -> dict[str, float]:
        return describe_plane(game, solution) if isinstance(game, FourRooms) else describe_line(solution, case.times)

    played = simulate(game, found.nash.policy, found.nash.mean_field, agents, SEED)
    described, measured = describe(found), measure(game, played, case.times)
    if coarse is None:
        figures, coarsely = judge_in_closed_form(game, found, played), described
    else:
        figures, coarsely = judge_on_the_grid(game, found, coarse, played), describe(coarse)
    for name, value in described.items():
        figures[name] = Figure(float(value), abs(value - coarsely[name]), *measured.get(name, (None, None)))
    return figures


# --- pictures --------------------------------------------------------------------------------------------------------

BLUE, SKY, GREEN, ORANGE, RED, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#777777"
HERE = 0.02  # of the largest density at t: where there is less, no policy is drawn
DPI = 100


def draw_line(path: Path, case: Case, found: Solution, others: dict[str, tuple[float, float]]) -> None:
    """A game on the line: the crowd and where it goes, its policy, its moments, its actions."""
    game, crowd, T = case.game, found.nash.mean_field, case.game.horizon
    low, high = case.bounds
    edges = np.linspace(low, high, 301)
    x = (edges[1:] + edges[:-1])[:, None] / 2
    density = np.exp([crowd.at(t).log_density(x) for t in range(T + 1)])
    actions = np.stack([found.policy(t, x)[:, 0] for t in range(T)])
    actions[density[:-1] < HERE * density[:-1].max(axis=1, keepdims=True)] = np.nan
    figure, grid_of_axes = plt.subplots(2, 2, figsize=(10, 6.8), layout="constrained", sharex=True)
    (space_time, policy), (states, chosen) = grid_of_axes

    def field(axes: Axes, values: np.ndarray, label: str, **colours: Any) -> None:
        image = axes.pcolormesh(np.arange(len(values) + 1) - 0.5, edges, values.T, rasterized=True, **colours)
        figure.colorbar(image, ax=axes, label=label, extend=colours.get("extend", "neither"))
        axes.set(xlim=(-0.5, T + 0.5), ylim=(low, high), ylabel=case.state)

    field(space_time, density, "density", cmap="magma", vmin=0, vmax=np.quantile(density, 0.99))
    draw_drift(space_time, game, found, x[12::25])
    if isinstance(game, BeachBar):
        space_time.axhline(game.x_bar, color=ORANGE, ls="--", lw=1.5, label="the bar")
    if isinstance(game, LinearQuadratic):
        space_time.axhline(cast(float, game.x_target), color=ORANGE, ls="--", lw=1.5, label="the target")
    if space_time.get_legend_handles_labels()[0]:
        space_time.legend(loc="lower right")
    space_time.set_title("the crowd, and where its agents head")

    largest = np.nanmax(np.abs(actions))
    policy.set_facecolor("#dddddd")
    field(policy, actions, "action", cmap="PuOr", vmin=-largest, vmax=largest)
    policy.set_title("the policy a(t, x), where the crowd is")

    mean, std, mean_action = moments(crowd)
    everywhere, in_places = spread_of_actions(found)
    with_dots(states, "mean", mean[:, 0], BLUE, others)
    with_dots(states, "std", std[:, 0], RED, others)
    states.set(xlabel="t", ylabel=case.state, title="mean and standard deviation of the states")
    with_dots(chosen, "mean action", mean_action[:, 0], BLUE, others)
    chosen.plot(everywhere, color=RED, lw=2, label="std of all agents' actions")
    if in_places.any():
        chosen.plot(in_places, color=ORANGE, lw=2, ls="--", label="std of actions at the same t and x")
    chosen.set(xlabel="t", ylabel="action a", title="mean and standard deviation of the actions")
    for axes in (states, chosen):
        axes.axhline(0, color=GREY, lw=0.6)
        axes.grid(alpha=0.3)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top + 0.3 * (top - bottom))  # room for the legend
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def with_dots(axes: Axes, what: str, values: np.ndarray, colour: str, others: dict[str, tuple[float, float]]) -> None:
    """A path over time, and the dots that an independent program gives of it."""
    axes.plot(values, color=colour, lw=2, label=what)
    dots = [(t, others[at(what, t)][0]) for t in range(len(values)) if at(what, t) in others]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=colour, mfc="white", ms=6, label=f"{what}, independent program")


def draw_drift(axes: Axes, game: Game, found: Solution, x: np.ndarray) -> None:
    """Arrows in the space-time plane from the points x (n, 1), to where steps without noise lead to."""
    stride = max(1, game.horizon // 14)
    still = np.zeros_like(x)
    for t in range(0, game.horizon, stride):
        mu = found.nash.mean_field.at(t)
        there = mu.log_density(x)
        x_there = x[there > np.log(HERE) + there.max()]
        z = still[: len(x_there)]
        drift = (game.step(t, x_there, found.policy(t, x_there), mu, z) - x_there)[:, 0]
        axes.quiver(
            np.full(len(z), t), x_there[:, 0], np.full(len(z), 0.75 * stride), 0.75 * stride * drift,
            angles="xy", scale_units="xy", scale=1, color=SKY, width=0.004, headwidth=4, headlength=4,
        )  # fmt: skip


def draw_plane(path: Path, game: FourRooms, found: Solution) -> None:
    """The four rooms: the crowd and its policy at several t, the masses of the rooms, how far the mixture differs."""
    crowd = cast(Grid, found.nash.mean_field)
    mesh, T = crowd.mesh, game.horizon
    x = np.stack(np.meshgrid(*[(np.arange(12) + 0.5) / 6 - 1] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    x = x[game.floor.contains(x)]
    figure = plt.figure(figsize=(10, 9.8), layout="constrained")
    layout = figure.add_gridspec(3, 3)
    snapshots = [figure.add_subplot(layout[i // 3, i % 3]) for i in range(6)]
    for axes, t in zip(snapshots, (1, T // 8, T // 4, T // 2, 3 * T // 4, T), strict=True):
        density = np.maximum(crowd.density[t], 1e-9)
        image = axes.pcolormesh(*mesh.lines, density.T, cmap="magma", norm=LogNorm(0.01, 10), rasterized=True)
        if t < T:
            there = crowd.at(t).log_density(x) > np.log(0.01)
            arrows = axes.quiver(*x[there].T, *found.policy(t, x[there]).T, color=SKY, scale=14, width=0.007)
        frame(axes, game, f"t = {t}")
        if axes is snapshots[0]:
            axes.quiverkey(arrows, 0.85, 1.05, 1, "speed 1", labelpos="W", color=BLUE)
    figure.colorbar(image, ax=snapshots, label="density of the crowd", extend="both", shrink=0.6)

    over_time = figure.add_subplot(layout[2, :2])
    inside = rooms(game, mesh.centres)
    styles = (("start", RED, "-"), ("lower right", BLUE, "-"), ("upper left", SKY, "--"), ("far", GREEN, "-"))
    for row, (name, colour, style) in zip(inside, styles, strict=False):
        over_time.plot(crowd.masses @ row, color=colour, ls=style, lw=2, label=f"room: {name}")
    over_time.plot(crowd.masses @ inside[-1], color=ORANGE, lw=2, label="the four doors")
    share = inside[0] @ mesh.volume / mesh.volume.sum()
    over_time.axhline(share, color=GREY, ls=":", lw=1.5, label="a room's share of the floor")
    over_time.set(xlabel="t", ylabel="mass", xlim=(0, T), ylim=(0, 1), title="where the crowd is")
    over_time.grid(alpha=0.3)
    over_time.legend(fontsize=9)

    differ = figure.add_subplot(layout[2, 2])
    assert found.spread is not None
    t = T // 5
    values = np.full(mesh.shape, np.nan)
    values[mesh.free] = np.where(crowd.masses[t] / mesh.volume > 0.01, found.spread[t], np.nan)
    differ.set_facecolor("#dddddd")
    image = differ.pcolormesh(*mesh.lines, values.T, cmap="viridis", vmin=0, rasterized=True)
    figure.colorbar(image, ax=differ, label="std of velocity at a point", shrink=0.8)
    frame(differ, game, f"t = {t}: how the mixture differs")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def frame(axes: Axes, game: FourRooms, title: str) -> None:
    """The square with its walls."""
    for (left, bottom), (right, top) in game.floor.walls:
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, color="#999999", lw=0))
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))


# --- tables ----------------------------------------------------------------------------------------------------------


def rows_of(name: str, figures: dict[str, Figure]) -> list[dict[str, str]]:
    """Rows of the CSV, with as many digits as it has; the page is made from them."""
    rows = []
    for what, figure in figures.items():
        independent, band = INDEPENDENT[name].get(what, (None, None))
        numbers = {**figure._asdict(), "independent": independent, "band": band}
        digits = {key: "" if number is None else f"{number:.6g}" for key, number in numbers.items()}
        rows.append({"game": name, "figure": what, **digits})
    return rows


def show(value: str, error: str) -> str:
    """A figure and its error, rounded up to two digits; a figure without error as it is."""
    if value == "":
        return ""
    if abs(float(value)) < 1e-12:
        return "0"
    if float(error) < 1e-12:
        return value
    digits = min(6, max(0, 1 - math.floor(math.log10(float(error)))))
    return f"{float(value):.{digits}f} ± {math.ceil(float(error) * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def block(case: Case, rows: list[dict[str, str]]) -> str:
    """What the page has between the markers of a game."""
    constants = ", ".join(f"{k}={v!r}" for k, v in case.game.constants.items() if k not in case.unread)
    how = f"{case.cells} cells across, {case.iterations} iterations" if case.cells else "closed form"
    lines = [
        *(f"    {line}" for line in textwrap.wrap(constants, 116, break_on_hyphens=False)),
        "",
        f"| | {how} | by play | independent program |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        cells = (
            show(row[a], row[b]) for a, b in (("value", "error"), ("play", "play_stderr"), ("independent", "band"))
        )
        lines.append(f"| {row['figure']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kept_rows(path: Path, games: Iterable[str]) -> list[dict[str, str]]:
    """Rows of the CSV that there is, of games that are not solved now."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file) if row["game"] not in games]


def main(arguments: Sequence[str] | None = None, cases: dict[str, Case] = CASES) -> None:
    """Solve, judge, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=list(cases), choices=list(cases))
    parser.add_argument("--agents", type=int, default=50_000, help="who play, an even number")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "equilibria.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "equilibria.md", help="with markers for the games")
    parser.add_argument("--pictures", type=Path, default=ROOT / "assets", help="the folder of pictures")
    parser.add_argument("--solutions", type=Path, default=ROOT / "runs" / "equilibria", help="the folder of solutions")
    options = parser.parse_args(arguments)
    folder = options.solutions / fingerprint()
    rows = kept_rows(options.output, options.games)
    for name in options.games:
        case = cases[name]
        found = find(name, case, folder, case.cells)
        coarse = find(name, case, folder, int(case.cells / grid.COARSER)) if case.cells else None
        new = rows_of(name, figures_of(case, found, coarse, options.agents))
        text = block(case, new)
        print(f"{name}\n{text}\n", flush=True)
        tables.fill(options.page, name, text, "equilibria.py")
        rows += new
        tables.write(options.output, sorted(rows, key=lambda row: list(CASES).index(row["game"])))
        picture = options.pictures / f"equilibrium_{name}.png"
        if isinstance(case.game, FourRooms):
            draw_plane(picture, case.game, found)
        else:
            draw_line(picture, case, found, INDEPENDENT[name])


if __name__ == "__main__":
    main()
