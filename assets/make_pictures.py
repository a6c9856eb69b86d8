"""The pictures of the games in their docstrings: python assets/make_pictures.py (some two minutes)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from mfg_envs.envs import Policy, Trajectories, simulate
from mfg_envs.equilibrium import solve
from mfg_envs.games import BeachBar, FourRooms, Game, LinearQuadratic, PriceImpact
from mfg_envs.mean_field import Empirical

ASSETS = Path(__file__).parent
AGENTS = 50_000


def nothing(game: Game) -> Policy:
    """Everybody stands still."""
    return lambda t, x: np.zeros((len(x), game.action_dim))


def line(name: str, game: Game, policy: Policy, low: float, high: float, ylabel: str, title: str) -> None:
    """A space-time map of the crowd's density on the line, and some paths."""
    played = simulate(game, policy, num_agents=AGENTS, seed=0)
    centres = np.linspace(low, high, 300)
    density = np.stack([np.exp(Empirical(x, floor=game.floor).log_density(centres[:, None])) for x in played.states])
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    shown = np.minimum(density, np.quantile(density, 0.99))
    image = axes.imshow(
        shown.T, origin="lower", aspect="auto", cmap="magma", extent=(-0.5, game.horizon + 0.5, low, high)
    )
    axes.plot(played.states[:, :12, 0], color="white", lw=0.6, alpha=0.7)
    axes.plot(played.states.mean(axis=1)[:, 0], color="#56B4E9", lw=2, label="mean")
    if isinstance(game, BeachBar):
        axes.axhline(game.x_bar, color="#E69F00", ls="--", lw=1.5, label="the bar")
    axes.set(xlabel="t", ylabel=ylabel, ylim=(low, high), title=title)
    axes.legend(loc="lower right")
    figure.colorbar(image, label="density of the crowd")
    figure.savefig(ASSETS / f"{name}.png", dpi=90)
    plt.close(figure)


def rooms(name: str, games: list[tuple[FourRooms, Policy, str]]) -> None:
    """Snapshots of the crowd's density in the plane, one row a game."""
    figure, grid = plt.subplots(len(games), 4, figsize=(11, 2.9 * len(games)), layout="constrained", squeeze=False)
    centres = (np.arange(160) + 0.5) / 80 - 1
    points = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    for row, (game, policy, title) in zip(grid, games, strict=True):
        played: Trajectories = simulate(game, policy, num_agents=AGENTS, seed=0)
        for axes, t in zip(row, (0, game.horizon // 8, game.horizon // 2, game.horizon), strict=True):
            density = np.exp(Empirical(played.states[t], floor=game.floor).log_density(points)).reshape(160, 160)
            image = axes.imshow(density.T, origin="lower", extent=(-1, 1, -1, 1), cmap="magma", vmin=0, vmax=1.5)
            for lower, upper in game.floor.walls:
                size = np.subtract(upper, lower)
                axes.add_patch(Rectangle(lower, *size, color="#999999", lw=0))
            axes.set(title=f"t = {t}", xticks=[], yticks=[])
        row[0].set_ylabel(title)
        figure.colorbar(image, ax=row, label="density", extend="max")
    figure.savefig(ASSETS / f"{name}.png", dpi=80)
    plt.close(figure)


def main() -> None:
    """Make them all."""
    lq, prices = LinearQuadratic(), PriceImpact()
    line("lq_v0", lq, solve(lq).policy, -2.0, 2.0, "x", "LinearQuadratic: the exact equilibrium")
    line(
        "price_impact_v0", prices, solve(prices).policy, -1.0, 2.2, "inventory q", "PriceImpact: the exact equilibrium"
    )
    beach = BeachBar()
    line("beach_bar_v0", beach, solve(beach).policy, -1.0, 1.0, "x", "BeachBar: the equilibrium, on a grid")
    exploring, leaving = FourRooms(), FourRooms(crowd="congestion")
    rooms(
        "four_rooms_v0",
        [
            (exploring, nothing(exploring), "nobody moves"),
            (exploring, solve(exploring, cells=40).policy, "entropy:\nthe equilibrium"),
            (leaving, solve(leaving, cells=40).policy, "congestion:\nthe equilibrium"),
        ],
    )


if __name__ == "__main__":
    main()
