"""Best responses by gradients through the game, against PPO's: what the oracle's best response earns more.

    python benchmarks/gradients.py

The games are differentiable: PyTorch's gradients go through a step, a reflection and a reward. So a best response can
be had without a critic, by Adam on the return of 512 agents whose noise is given, from t = 0 to T. Both learn from
nothing in the crowd of those who do nothing, with the same network; PPO is the first iteration of
solvers/dedafp_ppo.py, with its defaults of the game. One seed, one thread; PPO's seconds are by the clock, those of
gradients of the processor. The crowd that gradients see interpolates the solver's table linearly, as they need slopes;
both are judged in the table.

Writes benchmarks/results/gradients.csv and the table of docs/dedafp_ppo.md between its markers. Some eight minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from mfg_envs.envs import simulate
from mfg_envs.equilibrium.grid import Model
from mfg_envs.games import BeachBar, FourRooms, Game
from mfg_envs.mean_field import Flow, Grid
from mfg_envs.policies import DeterministicPolicy

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "solvers"))
solver: Any = import_module("dedafp_ppo")

RESULTS = ROOT / "benchmarks" / "results" / "gradients.csv"
GAMES: dict[str, tuple[Game, str, tuple[str, ...]]] = {
    "beach bar": (BeachBar(), "beach_bar_v0", ()),
    "four rooms, entropy": (FourRooms(), "four_rooms_v0", ()),
    "four rooms, congestion": (FourRooms(crowd="congestion"), "four_rooms_v0", ("crowd=congestion",)),
}
UPDATES = (32, 128, 512)
AGENTS, LEARNING_RATE, MAX_GRAD_NORM = 512, 1e-2, 0.5
LEAST_LOG_DENSITY = -30.0
RASTER = {1: 400, 2: 80}  # points across a floor of that dimension
SEED = 1


class Law:
    """mu_t with slopes: the log density of a table at the points of a raster, interpolated linearly, under PyTorch."""

    def __init__(self, table: Grid, t: int) -> None:
        floor = table.floor
        cells = RASTER[table.dim]
        lines = [np.linspace(low, high, 2 * cells + 1)[1::2] for low, high in zip(floor.low, floor.high, strict=True)]
        points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
        logs = table.at(t).log_density(points.reshape(-1, table.dim)).reshape(points.shape[:-1])
        walls = ~floor.contains(points.reshape(-1, table.dim)).reshape(logs.shape)
        nearest = ndimage.distance_transform_edt(walls, return_distances=False, return_indices=True)
        logs = np.maximum(logs, LEAST_LOG_DENSITY)[tuple(nearest)]  # in walls, as at the nearest point outside
        self.logs = torch.as_tensor(logs, dtype=torch.float32).reshape(1, 1, *logs.shape)
        self.low, self.high = torch.tensor(floor.low), torch.tensor(floor.high)

    def log_density(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        unit = 2 * (x - self.low) / (self.high - self.low) - 1
        image = self.logs if x.shape[1] == 2 else self.logs[..., None]
        at = torch.cat([unit, torch.zeros_like(unit)], dim=1)[:, :2].flip(1)[None, None]
        return torch.nn.functional.grid_sample(image, at, padding_mode="border", align_corners=False).flatten()


def by_gradients(game: Game, table: Grid, actor: DeterministicPolicy, updates: int) -> None:
    """Climb the return through the game, at a rate annealed to zero: `actor` is changed."""
    laws: list[Any] = [Law(table, t) for t in range(game.horizon + 1)]
    scale = torch.tensor((game.action_high - game.action_low) / 2, dtype=torch.float32)
    optimizer = torch.optim.Adam(actor.parameters(), lr=LEARNING_RATE)
    schedule = solver.annealed(optimizer, updates)
    for _ in range(updates):
        noise = torch.randn(game.horizon + 1, AGENTS, game.dim)
        x, returns = game.initial_state(noise[-1]), torch.zeros(AGENTS)
        for t in range(game.horizon):
            a = actor.net(actor.features(x, torch.full((AGENTS, 1), t / game.horizon))) * scale
            returns = returns + game.reward(t, x, a, laws[t])
            x = game.step(t, x, a, laws[t], noise[t])
        returns = returns + game.terminal_reward(x, laws[-1])
        solver.descend(-returns.mean(), optimizer, "best response", MAX_GRAD_NORM)
        schedule.step()


def measure(title: str, updates: int) -> dict[str, Any]:
    """What both best responses to the crowd of those who do nothing fall short of the oracle's, and their seconds."""
    game, env_id, constants = GAMES[title]
    args = dataclasses.replace(
        solver.defaults(env_id), constants=constants, seed=SEED, iterations=1, updates=updates, oracle_every=1
    )
    with tempfile.TemporaryDirectory() as folder:
        run = solver.train(dataclasses.replace(args, runs_dir=Path(folder)))
        saved = torch.load(run / "checkpoint.pt", weights_only=True)
    figures = saved["history"][0]

    assert game.floor is not None
    idle = simulate(game, lambda t, x: np.zeros((len(x), game.action_dim)), num_agents=args.flow_agents, seed=SEED)
    flow = Flow(game.dim, game.horizon, game.action_dim, bins=args.flow_bins).eval()
    flow.standardise(idle.states, idle.actions)  # mu^0, as the solver's
    table, _ = solver.tabulate(flow, game)
    middle, half = (game.state_high + game.state_low) / 2, (game.state_high - game.state_low) / 2
    torch.manual_seed(SEED)
    actor = DeterministicPolicy(
        game.dim,
        game.action_dim,
        game.horizon,
        tuple(middle),
        tuple(half),
        tuple((game.action_high - game.action_low) / 2),
        waves=args.waves,
    )
    start = time.process_time()
    by_gradients(game, table, actor, updates)
    seconds = time.process_time() - start
    grid = Model(game, args.oracle_cells)
    return {
        "game": title,
        "updates": updates,
        "best_return": grid.respond(table)[1],
        "ppo": figures["errors/best_response"],
        "ppo_s": figures["charts/env_steps"] / figures["charts/SPS"],
        "gradients": solver.response_error(game, grid, actor, table, args.oracle_agents, SEED),
        "gradients_s": seconds,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "dedafp_ppo.md", help="with markers for the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(title, updates) for title, updates in tqdm([(g, u) for g in GAMES for u in UPDATES], unit="pair")]
    tables.write(options.output, rows)
    lines = ["| game | updates | PPO | s | gradients | s |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {row['game']} | {row['updates']} | {row['ppo']:.3f} | {row['ppo_s']:.0f} | "
        f"{row['gradients']:.3f} | {row['gradients_s']:.0f} |"
        for row in rows
    ]
    print("\n".join(lines))
    tables.fill(options.page, "gradients", "\n".join(lines), "gradients.py")


if __name__ == "__main__":
    main()
