"""DEDA-FP with PPO best responses: solve a continuous mean field game and say how far from Nash the answer is.

Density-Enhanced Deep-Average Fictitious Play (Magnino et al., arXiv 2510.22158). For k = 1, ..., K:

    1. best response: PPO in the frozen crowd of iteration k-1, a normalizing flow;
    2. average policy: maximum likelihood on the (t, x, a) of all best responses so far; its mean is played;
    3. average mean field: maximum likelihood of the flow on trajectories of the average policy.

    python solvers/dedafp_ppo.py                                     # the linear-quadratic game, all defaults
    python solvers/dedafp_ppo.py --env-id four_rooms_v0              # another game, with defaults of its own
    python solvers/dedafp_ppo.py --constants horizon=30 A_bar=0.2    # with other constants
    python solvers/dedafp_ppo.py --resume runs/lq_v0__dedafp_ppo__1  # go on after Ctrl-C

It writes to runs/<run_name>/: TensorBoard scalars, checkpoint.pt, summary.json, equilibrium.pt and equilibrium.png.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import gymnasium
import matplotlib
import numpy as np
import torch
import tyro
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mfg_envs.envs import Policy, simulate
from mfg_envs.equilibrium import (
    AffinePolicy,
    Mixture,
    best_response,
    exploitability,
    load_equilibrium,
    save_equilibrium,
    solve,
)
from mfg_envs.equilibrium.grid import Model
from mfg_envs.games import Game
from mfg_envs.mean_field import Flow, Grid, MeanField
from mfg_envs.mean_field.grid import Mesh
from mfg_envs.policies import AveragePolicy, DeterministicPolicy

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle


@dataclass
class Args:
    """DEDA-FP: PPO best responses, a cloned average policy, the crowd as a normalizing flow.

    The defaults below are those of lq_v0; DEFAULTS holds what other games change.
    """

    env_id: str = "lq_v0"
    """the game, by the name of its module in mfg_envs"""
    constants: tuple[str, ...] = ()
    """constants of the game, as NAME=VALUE; matrices as Python lists: "A=[[1,0],[0,1]]" """
    seed: int = 1
    """of everything random"""
    device: str = "cpu"
    """cpu or cuda"""
    torch_threads: int = 1
    """threads of PyTorch; one is the safe choice on a shared machine"""
    runs_dir: Path = Path("runs")
    """where runs are kept"""
    run_name: str | None = None
    """folder in runs_dir; by default <env_id>__dedafp_ppo__<seed>"""
    resume: Path | None = None
    """the folder of an interrupted run, which goes on with its own arguments (--iterations may be raised)"""
    overwrite: bool = False
    """start anew in a folder that has a run already"""
    capture_video: bool = False
    """film the average policy at the end, swarm.mp4; needs the extra `render`"""

    # fictitious play
    iterations: int = 35
    """K, iterations of fictitious play"""
    averaging: Literal["quadratic", "linear", "uniform"] = "linear"
    """weights of the best responses in the average: the k-th weighs k^2, k or 1"""
    waves: int = 0
    """all policies and the critic see sin(j pi x) and cos(j pi x) of each standardised coordinate up to this j"""
    oracle_every: int = 1
    """iterations between two looks at the exploitability; 0 looks at the end alone"""
    oracle_cells: int | None = None
    """cells of the grid oracle after an iteration, None for its default; at the end it is always the default"""
    oracle_agents: int = 10_000
    """agents that the oracle simulates"""

    # 1. best response
    num_agents: int = 512
    """representative agents that play one episode for each update of PPO"""
    updates: int = 14
    """updates of PPO in each best response"""
    epochs: int = 4
    """passes over each episode's data"""
    minibatch_size: int = 2048
    """transitions in a minibatch"""
    learning_rate: float = 2e-3
    """of Adam, annealed to zero within each best response"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation; rewards are not discounted"""
    clip: float = 0.2
    """clipping range of the probability ratio"""
    entropy: float = 0.0
    """weight of the entropy bonus"""
    log_std: float = -2.3
    """log standard deviation of exploration, in half-widths of the action box, at the start of each best response"""
    max_grad_norm: float = 0.5
    """clipping of the gradient's norm"""

    # 2. average policy
    average_policy: Literal["mean", "gaussian", "mixture"] = "mean"
    """what is played: the mean of a Gaussian, its draws as in the paper, or the draws of a mixture of Gaussians"""
    components: int = 5
    """Gaussians in the mixture"""
    policy_steps: int = 400
    """steps of Adam in each iteration"""
    policy_batch: int = 2048
    """transitions in a step"""
    policy_learning_rate: float = 5e-3
    """of Adam, annealed to zero within each iteration"""

    # 3. average mean field
    flow_agents: int = 4000
    """agents that play the average policy to show the flow its crowd"""
    flow_bins: int = 8
    """bins of each spline"""
    flow_steps: int = 40
    """steps of Adam in each iteration"""
    flow_batch: int = 2048
    """states in a step"""
    flow_learning_rate: float = 8e-3
    """of Adam; the flow is a running average over its steps"""


DEFAULTS: dict[str, dict[str, Any]] = {
    "lq_v0": {},
    "price_impact_v0": {},
    "beach_bar_v0": {
        "iterations": 55,
        "averaging": "quadratic",
        "waves": 3,
        "updates": 16,
        "epochs": 1,
        "learning_rate": 4e-3,
        "gae_lambda": 0.8,
        "entropy": 1e-3,
        "log_std": -0.7,
        "policy_steps": 150,
        "flow_bins": 16,
        "flow_steps": 60,
    },
    "four_rooms_v0": {
        "iterations": 60,
        "averaging": "quadratic",
        "waves": 4,
        "oracle_every": 5,
        "oracle_cells": 40,
        "updates": 32,
        "epochs": 1,
        "learning_rate": 4e-3,
        "gae_lambda": 0.8,
        "entropy": 1e-3,
        "log_std": -0.7,
        "policy_steps": 150,
        "flow_agents": 10_000,
        "flow_bins": 32,
        "flow_steps": 40,
    },
}


MEMORY = 0.05  # the share of all its steps so far that the flow is the average of
TABLE_CELLS = {1: 200, 2: 40}  # of the crowd's density, across the longest side of a floor of that dimension


def defaults(env_id: str) -> Args:
    """The default arguments of a game."""
    return Args(env_id=env_id, **DEFAULTS.get(env_id, {}))


class Agent(nn.Module):
    """Actor and critic of PPO on the same features of x and t/T. Actions are in half-widths of the action box."""

    actor: DeterministicPolicy

    def __init__(self, actor: DeterministicPolicy) -> None:
        super().__init__()
        self.actor = actor  # the mean action
        head = nn.Linear(64, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.critic = nn.Sequential(nn.Linear(actor.inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), head)
        self.log_std = nn.Parameter(torch.zeros(actor.action_dim))

    def features(self, obs: Tensor) -> Tensor:
        """Of observations [x, t/T]: x standardised and its waves, t/T and cos(j pi t/T), (n, inputs)."""
        return self.actor.features(obs[:, :-1], obs[:, -1:])

    def action(self, seen: Tensor) -> torch.distributions.Normal:
        """The distribution of scaled actions, (n, k), given features."""
        return torch.distributions.Normal(self.actor.net(seen), self.log_std.exp(), validate_args=False)

    def value(self, seen: Tensor) -> Tensor:
        """The value, centred and scaled for each t, (n,), given features."""
        return self.critic(seen).squeeze(-1)


class Divergence(Exception):
    """A loss became NaN or infinite; the checkpoint of the iteration before is good."""


def annealed(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A learning rate that goes linearly to zero in `steps` steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, what: str, max_grad_norm: float) -> None:
    """One step down a loss, which must be finite, and its gradient too."""
    optimizer.zero_grad()
    loss.backward()
    norm = sum(nn.utils.clip_grad_norm_(group["params"], max_grad_norm) for group in optimizer.param_groups)
    for name, number in (("the loss", loss.item()), ("the gradient of the loss", float(norm))):
        if not math.isfinite(number):
            raise Divergence(f"{name} of the {what} is {number}; the last checkpoint is kept")
    optimizer.step()


def played(policy: AveragePolicy, args: Args) -> AveragePolicy | DeterministicPolicy:
    """What of the average policy agents play: its mean, or itself, which draws."""
    return policy.mean_policy() if args.average_policy == "mean" else policy


def tabulate(flow: Flow, game: Game) -> tuple[MeanField, float]:
    """The crowd that best responses see, and the largest share of the flow's mass, over t, that is not on the floor.

    A flow is smooth: it leaks into walls and past the border, is too thin before them, and a best response finds such
    places. What is off the floor is mirrored back at the nearest face, as a kernel density is at a border, and the
    density is tabulated on a mesh, where a look-up costs much less than the flow. Games that read no density,
    or have no floor, see the flow itself.
    """
    reads_density = "log_density" in game.reward_reads | game.dynamics_reads
    if not reads_density or game.floor is None or game.dim not in TABLE_CELLS:
        return flow, 0.0
    mesh = Mesh(game.floor, TABLE_CELLS[game.dim])
    margin = mesh.cells // 8  # cells past the border
    widths = [np.pad(np.diff(line), margin, "edge") for line in mesh.lines]
    lines = [line[0] + np.cumsum([0, *w]) - w[:margin].sum() for line, w in zip(mesh.lines, widths, strict=True)]
    free = np.pad(mesh.free, margin)
    centres = np.stack(np.meshgrid(*((line[1:] + line[:-1]) / 2 for line in lines), indexing="ij"), axis=-1)
    volume = np.prod(np.meshgrid(*widths, indexing="ij"), axis=0)

    number = np.full(free.shape, -1)
    number[free] = np.arange(len(mesh))
    nearest = ndimage.distance_transform_edt(~free, return_distances=False, return_indices=True)
    off = nearest - np.indices(free.shape)
    mirrored = np.clip(nearest + off - np.sign(off), 0, np.array(free.shape).reshape(-1, *(1,) * game.dim) - 1)
    to = np.where(free[tuple(mirrored)], number[tuple(mirrored)], number[tuple(nearest)]).ravel()

    points = centres.reshape(-1, game.dim)
    mass = np.stack([np.exp(flow.at(t).log_density(points)) for t in range(game.horizon + 1)]) * volume.ravel()
    leak = float(1 - np.min(mass[:, free.ravel()].sum(axis=1)))
    masses = np.stack([np.bincount(to, m, len(mesh)) for m in mass])
    return Grid(mesh, masses / masses.sum(axis=1, keepdims=True), flow.mean_actions.double().cpu().numpy()), leak


def oracle_grid(game: Game, args: Args) -> Model | None:
    """What errors are measured on: the oracle's grid; on the line without a floor, wide enough; else none."""
    if game.floor is not None:
        return Model(game, args.oracle_cells)
    if game.dim > 1:
        return None
    idle = simulate(game, lambda t, x: np.zeros((len(x), game.action_dim)), num_agents=1000, seed=args.seed)
    crowd = idle.mean_field(game)
    busy = simulate(game, best_response(game, crowd).policy, crowd, num_agents=1000, seed=args.seed)
    reached = np.stack([idle.states, busy.states])
    low, high = reached.min(), reached.max()
    return Model(game, args.oracle_cells, bounds=(low - (high - low) / 2, high + (high - low) / 2))


def response_error(
    game: Game, grid: Model | None, response: Policy, crowd: MeanField, num_agents: int, seed: int
) -> float:
    """What the oracle's best response to a crowd earns more than the learnt one: both on the grid, or by play."""
    if game.floor is None or grid is None:
        best = best_response(game, crowd).policy
        played = [simulate(game, policy, crowd, num_agents, seed) for policy in (best, response)]
        return float((played[0].returns - played[1].returns).mean())
    return grid.respond(crowd)[1] - grid.flow(response, crowd)[1]


def crowd_errors(grid: Model, mixture: Mixture, policy: Policy, seen: MeanField, seed: int) -> dict[str, float]:
    """How far cloning and the flow lead away from the exact average, in total variation and in units of return."""
    exact, _ = grid.flow(mixture)
    cloned, _ = grid.flow(policy, seed=seed)
    return {
        "errors/average_policy": grid.total_variation(cloned, exact),
        "errors/average_policy_reward": grid.reward_distance(cloned, exact),
        "errors/flow": grid.total_variation(seen, cloned),
        "errors/flow_reward": grid.reward_distance(seen, cloned),
    }


def train(args: Args) -> Path:
    """Run DEDA-FP and return the folder with its results.

    Raises:
        ValueError: for arguments out of range, a game or a constant that does not exist.
        Divergence: if a loss becomes NaN.
    """
    check(args)
    torch.set_num_threads(args.torch_threads)
    device = torch.device(args.device)
    constants = parse_constants(args.constants)
    gym_id = "mfg_envs/" + args.env_id.replace("_v", "-v")
    run = run_folder(args)

    try:
        game = gymnasium.make_vec(gym_id, **constants).unwrapped.game  # type: ignore[attr-defined]
    except (gymnasium.error.Error, TypeError) as error:  # a TypeError is an unknown constant
        raise ValueError(f"cannot make {args.env_id} with constants {constants}: {error}") from error
    if args.resume is None and (run / "checkpoint.pt").exists() and not args.overwrite:
        raise ValueError(f"{run} has a run already: --resume it, give another --run-name, or --overwrite it")
    T, d, k = game.horizon, game.dim, game.action_dim
    action_scale = (game.action_high - game.action_low) / 2

    def nothing(t: int, x: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), k))

    coarse = {"cells": args.oracle_cells} if args.oracle_cells is not None and game.floor is not None else {}
    doing_nothing = float(exploitability(game, nothing, args.oracle_agents, **coarse))
    grid = oracle_grid(game, args) if args.oracle_every else None

    # States are standardised by the floor, or else by what random actions reach.
    if game.floor is not None:
        location, scale = (game.state_high + game.state_low) / 2, (game.state_high - game.state_low) / 2
    else:
        actions = np.random.default_rng(args.seed)
        wander = simulate(
            game,
            lambda t, x: actions.uniform(game.action_low, game.action_high, (len(x), k)),
            num_agents=args.flow_agents,
            seed=args.seed,
        ).states.reshape(-1, d)
        location, scale = wander.mean(axis=0), wander.std(axis=0) + 1e-6

    torch.manual_seed(args.seed)
    sizes = (d, k, T, tuple(location), tuple(scale), tuple(action_scale))
    agent = Agent(DeterministicPolicy(*sizes, waves=args.waves)).to(device)
    components = args.components if args.average_policy == "mixture" else 1
    policy = AveragePolicy(*sizes, components=components, waves=args.waves).to(device)
    flow = Flow(d, T, k, bins=args.flow_bins).to(device)  # the running average of the one that learns
    learner = copy.deepcopy(flow)
    flow_optimizer = torch.optim.Adam(learner.parameters(), lr=args.flow_learning_rate)
    learnt: dict[str, Any] = {
        "agent": agent,
        "policy": policy,
        "flow": flow,
        "learner": learner,
        "flow_optimizer": flow_optimizer,
    }
    pool: list[tuple[Tensor, Tensor]] = []  # states (T, N, d) and actions (T, N, k) of each best response
    responses: list[DeterministicPolicy] = []  # and its network, for the oracle alone
    history: list[dict[str, float]] = []  # a row of figures for each iteration
    times = torch.arange(T + 1, device=device)

    checkpoint = run / "checkpoint.pt"
    if args.resume is not None:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        for name, part in learnt.items():
            part.load_state_dict(saved[name])
        flow.eval()
        pool, history = saved["pool"], saved["history"]
        for state in saved["responses"]:
            responses.append(copy.deepcopy(agent.actor))
            responses[-1].load_state_dict(state)
    else:
        run.mkdir(parents=True, exist_ok=True)
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()  # of the run that is overwritten
        crowd = simulate(game, nothing, num_agents=args.flow_agents, seed=args.seed)
        flow.standardise(crowd.states, crowd.actions)  # mu^0: everybody does nothing, a Gaussian for a start
        flow.eval()
        save_checkpoint(checkpoint, args, learnt, pool, responses, history)
    frozen, leak = tabulate(flow, game)
    writer = SummaryWriter(str(run), purge_step=len(history) + 1)

    bar = tqdm(total=args.iterations, initial=len(history), desc=args.env_id, unit="iteration", dynamic_ncols=True)
    for iteration in range(len(history) + 1, args.iterations + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        # All that is random in an iteration comes from (seed, iteration): a resumed run repeats an uninterrupted one.
        seeds = np.random.SeedSequence([args.seed, iteration]).generate_state(4).tolist()
        torch.manual_seed(seeds[0])

        # --- 1. best response: PPO against the flow of the last iteration ---------------------------------------
        envs = gymnasium.make_vec(gym_id, num_envs=args.num_agents, mean_field=frozen, **constants)
        envs.reset(seed=seeds[1])
        with torch.no_grad():
            agent.log_std.fill_(args.log_std)
        optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
        schedule = annealed(optimizer, args.updates)
        seen = torch.zeros(T, args.num_agents, agent.actor.inputs, device=device)
        acts = torch.zeros(T, args.num_agents, k, device=device)
        rewards = torch.zeros(T, args.num_agents, device=device)
        for update in range(args.updates):
            now, _ = envs.reset()
            for t in range(T):  # one episode of everybody; a finite horizon ends in termination
                with torch.no_grad():
                    seen[t] = agent.features(torch.as_tensor(now, device=device))
                    acts[t] = agent.action(seen[t]).sample()
                now, reward, *_ = envs.step(acts[t].cpu().numpy() * action_scale)
                rewards[t] = torch.as_tensor(reward)
            with torch.no_grad():
                logprobs = agent.action(seen).log_prob(acts).sum(-1)
                values = agent.value(seen)

            returns = rewards.flip(0).cumsum(0).flip(0)
            if update == 0:  # values are learnt centred and scaled, t by t
                centre, spread = returns.mean(1, keepdim=True), returns.std(1, keepdim=True) + 1e-3
            values = values * spread + centre
            advantages = torch.zeros_like(rewards)
            following = torch.zeros(args.num_agents, device=device)
            for t in reversed(range(T)):
                next_value = values[t + 1] if t + 1 < T else torch.zeros_like(values[t])  # nothing comes after T
                following = rewards[t] + next_value - values[t] + args.gae_lambda * following
                advantages[t] = following
            targets = advantages + values
            centre, spread = targets.mean(1, keepdim=True), targets.std(1, keepdim=True) + 1e-3
            flat_targets = ((targets - centre) / spread).flatten()
            advantages = (advantages - advantages.mean(1, keepdim=True)) / (advantages.std(1, keepdim=True) + 1e-8)
            flat_advantages, flat_seen = advantages.flatten(), seen.flatten(0, 1)
            flat_acts, flat_logprobs = acts.flatten(0, 1), logprobs.flatten()
            for _ in range(args.epochs):
                for rows in torch.randperm(len(flat_seen), device=device).split(args.minibatch_size):
                    distribution = agent.action(flat_seen[rows])
                    ratio = (distribution.log_prob(flat_acts[rows]).sum(-1) - flat_logprobs[rows]).exp()
                    gain = flat_advantages[rows]
                    policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - args.clip, 1 + args.clip) * gain).mean()
                    value_loss = (agent.value(flat_seen[rows]) - flat_targets[rows]).square().mean()
                    loss = policy_loss + 0.5 * value_loss - args.entropy * distribution.entropy().sum(-1).mean()
                    descend(loss, optimizer, f"best response in iteration {iteration}", args.max_grad_norm)
            schedule.step()

        # What the average policy learns from: the mean action, along the paths that it makes in the same crowd.
        trained_in = frozen
        responses.append(copy.deepcopy(agent.actor))
        response = simulate(game, responses[-1], frozen, num_agents=args.num_agents, seed=seeds[2])
        pool.append(
            (
                torch.as_tensor(response.states[:-1], dtype=torch.float32, device=device),
                torch.as_tensor(response.actions, dtype=torch.float32, device=device),
            )
        )
        response_seconds = time.perf_counter() - started

        # --- 2. average policy: maximum likelihood on all best responses ------------------------------------------
        power = {"uniform": 0, "linear": 1, "quadratic": 2}[args.averaging]
        weights = torch.arange(1.0, len(pool) + 1) ** power
        states, chosen = (torch.stack(parts) for parts in zip(*pool, strict=True))  # (K, T, N, .)
        optimizer = torch.optim.Adam(policy.parameters(), lr=args.policy_learning_rate)
        schedule = annealed(optimizer, args.policy_steps)
        for _ in range(args.policy_steps):
            of = torch.multinomial(weights, args.policy_batch, replacement=True).to(device)
            t_ = torch.randint(T, (args.policy_batch,), device=device)
            n_ = torch.randint(args.num_agents, (args.policy_batch,), device=device)
            policy_loss = -policy.log_prob(t_, states[of, t_, n_], chosen[of, t_, n_]).mean()
            descend(policy_loss, optimizer, f"average policy in iteration {iteration}", args.max_grad_norm)
            schedule.step()

        # --- 3. average mean field: maximum likelihood of the flow on the average policy's crowd ------------------
        answer = played(policy, args)
        crowd = simulate(game, answer, num_agents=args.flow_agents, seed=seeds[3], antithetic=True)
        share = 2 / (iteration + 1) if game.floor is not None else 1.0  # borders should not move in a flow's eyes
        for module in (flow, learner):
            module.standardise(crowd.states, crowd.actions, share)
        paths = torch.as_tensor(crowd.states, dtype=torch.float32, device=device)
        for step in range((iteration - 1) * args.flow_steps, iteration * args.flow_steps):
            t_ = times[torch.randint(T + 1, (args.flow_batch,), device=device)]
            n_ = torch.randint(args.flow_agents, (args.flow_batch,), device=device)
            flow_loss = -learner.log_prob(t_, paths[t_, n_]).mean()
            descend(flow_loss, flow_optimizer, f"flow in iteration {iteration}", args.max_grad_norm)
            with torch.no_grad():
                for average, newest in zip(flow.parameters(), learner.parameters(), strict=True):
                    average.lerp_(newest, 1 / (1 + MEMORY * step))
        frozen, leak = tabulate(flow, game)

        # --- how far from Nash, what it cost, and a checkpoint ----------------------------------------------------
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        row = {
            "charts/best_response_return": float(response.returns.mean()),
            "charts/env_steps": float(iteration * args.updates * args.num_agents * T),
            "charts/SPS": args.updates * args.num_agents * T / response_seconds,
            "charts/seconds": seconds + (history[-1]["charts/seconds"] if history else 0.0),
            "charts/cpu_seconds": cpu_seconds + (history[-1]["charts/cpu_seconds"] if history else 0.0),
            "errors/leak": leak,
            "losses/value": value_loss.item(),
            "losses/log_std": agent.log_std.mean().item(),
            "losses/average_policy": policy_loss.item(),
            "losses/flow": flow_loss.item(),
        }
        if args.oracle_every and iteration % args.oracle_every == 0:
            nash = exploitability(game, answer, args.oracle_agents, seed=seeds[3], **coarse)
            row |= {
                "charts/exploitability": nash.value,
                "charts/exploitability_stderr": nash.stderr,
                "charts/policy_return": nash.policy_return,
                "errors/best_response": response_error(
                    game, grid, responses[-1], trained_in, args.oracle_agents, args.seed
                ),
            }
            if grid is not None:
                row |= crowd_errors(grid, Mixture(responses, weights.numpy()), answer, frozen, seeds[3])
            bar.set_postfix(exploitability=f"{nash.value:.4f}", of_nothing=f"{nash.value / doing_nothing:.2%}")
        history.append(row)
        for name, figure in row.items():
            writer.add_scalar(name, figure, iteration)
        save_checkpoint(checkpoint, args, learnt, pool, responses, history)
        bar.update()
    bar.close()
    writer.close()

    # --- results ----------------------------------------------------------------------------------------------------
    answer = played(policy, args)
    nash = exploitability(game, answer, max(args.oracle_agents, 20_000), seed=args.seed)
    if coarse:
        doing_nothing = float(exploitability(game, nothing, args.oracle_agents))
    summary = {
        "env_id": args.env_id,
        "game": type(game).__name__,
        "constants": game.constants,
        "seed": args.seed,
        "iterations": len(history),
        "exploitability": nash.value,
        "exploitability_stderr": nash.stderr,
        "exploitability_by_play": nash.lower,
        "exploitability_of_doing_nothing": doing_nothing,
        "exploitability_relative": nash.value / doing_nothing,
        "policy_return": nash.policy_return,
        "env_steps": int(history[-1]["charts/env_steps"]),
        "seconds": history[-1]["charts/seconds"],
        "cpu_seconds": history[-1]["charts/cpu_seconds"],
        "device": args.device,
        "args": {f.name: getattr(args, f.name) for f in dataclasses.fields(args)},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("mfg-envs", "numpy", "torch", "zuko", "gymnasium", "pettingzoo")},
    }
    (run / "summary.json").write_text(json.dumps(summary, indent=2, default=str) + "\n")
    save_equilibrium(run / "equilibrium.pt", game, answer, flow, nash.policy_return, nash.value)
    plot(run / "equilibrium.png", game, policy, flow, history, doing_nothing)
    if args.capture_video:
        from mfg_envs.viewer.film import film
        from mfg_envs.viewer.players import Player

        film(run / "swarm.mp4", game, [Player("average policy", answer, load_equilibrium(run / "equilibrium.pt"))])
    print(
        f"exploitability {nash.value:.4f} ± {nash.stderr:.4f}, {nash.value / doing_nothing:.2%} of doing nothing's; "
        f"results in {run}"
    )
    return run


def save_checkpoint(
    path: Path,
    args: Args,
    learnt: dict[str, Any],
    pool: list[tuple[Tensor, Tensor]],
    responses: list[DeterministicPolicy],
    history: list[dict[str, float]],
) -> None:
    """All that the next iteration starts from. The old checkpoint is replaced, whole or not at all."""
    content = {
        "args": {f.name: plain(getattr(args, f.name)) for f in dataclasses.fields(args)},
        **{name: part.state_dict() for name, part in learnt.items()},
        "pool": pool,
        "responses": [response.state_dict() for response in responses],
        "history": history,
    }
    torch.save(content, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def plain(value: Any) -> Any:
    """Paths as strings, so that a checkpoint is data alone."""
    return str(value) if isinstance(value, Path) else value


def run_folder(args: Args) -> Path:
    """Where a run is kept."""
    return args.runs_dir / (args.run_name or f"{args.env_id}__dedafp_ppo__{args.seed}")


def check(args: Args) -> None:
    """Raise a ValueError that names the argument that is out of range."""
    least = {"seed": 0, "waves": 0, "oracle_every": 0, "oracle_cells": 6, "num_agents": 2, "oracle_agents": 4}
    least |= {"flow_agents": 2, "flow_bins": 2}
    for field in dataclasses.fields(args):
        value, name = getattr(args, field.name), "--" + field.name.replace("_", "-")
        if type(value) is int and value < least.get(field.name, 1):
            raise ValueError(f"{name} must be at least {least.get(field.name, 1)}, got {value}")
        if field.name in ("oracle_agents", "flow_agents") and value % 2:
            raise ValueError(f"{name} must be even, as noise is mirrored, got {value}")
        if field.name.endswith("learning_rate") and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")
        if field.name == "gae_lambda" and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    if args.capture_video and not all(map(find_spec, ("pygame", "imageio_ffmpeg"))):
        raise ValueError("--capture-video needs the extra `render`: pip install 'mfg-envs[render]'")
    if args.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: PyTorch sees no such device here")


def parse_constants(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs to keyword arguments; a value is a Python literal, or else a string."""
    constants = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--constants takes NAME=VALUE, got {pair!r}")
        try:
            constants[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            constants[name] = text
    return constants


def parse(arguments: list[str] | None = None) -> Args:
    """The arguments of the command line; where it says --resume, those of that run.

    Raises:
        ValueError: if there is no checkpoint to resume, or if the command line contradicts it.
    """
    args = tyro.cli(Args, args=arguments)
    if args.resume is None:
        return tyro.cli(Args, args=arguments, default=defaults(args.env_id))
    path = args.resume / "checkpoint.pt"
    if not path.is_file():
        raise ValueError(f"there is no checkpoint in {args.resume}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        done = len(saved["history"])
        old = Args(**{**saved["args"], "constants": tuple(saved["args"]["constants"])})
    except Exception as error:  # torch.load raises many kinds
        raise ValueError(f"{path} is truncated or no checkpoint of this solver") from error
    old = dataclasses.replace(old, resume=args.resume, runs_dir=args.resume.parent, run_name=args.resume.name)
    args = tyro.cli(Args, args=arguments, default=old)
    for field in dataclasses.fields(Args):
        given, kept = getattr(args, field.name), getattr(old, field.name)
        if field.name not in ("iterations", "capture_video") and given != kept:
            raise ValueError(
                f"--{field.name.replace('_', '-')} is {given!r}, but the run in {args.resume} has {kept!r}"
            )
    if args.iterations < done:
        raise ValueError(f"--iterations is {args.iterations}, but the run in {args.resume} has done {done}")
    return args


def plot(
    path: Path, game: Any, policy: AveragePolicy, flow: Flow, history: list[dict[str, float]], doing_nothing: float
) -> None:
    """Exploitability over iterations; the crowd; the policy: against the exact equilibrium where that is quick."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")

    judged = [(i, row["charts/exploitability"]) for i, row in enumerate(history, 1) if "charts/exploitability" in row]
    if judged:
        left.semilogy(*zip(*judged, strict=True), "o-", color="#0072B2", ms=4)
    left.axhline(doing_nothing, color="#999999", ls=":", label="doing nothing")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()
    left.set(xlabel="iteration of fictitious play", ylabel="exploitability", title="How far from Nash")
    left.grid(alpha=0.3, which="both")
    (draw_plane if game.floor is not None and game.dim == 2 else draw_line)(middle, right, game, policy, flow)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_plane(middle: Any, right: Any, game: Any, policy: AveragePolicy, flow: Flow) -> None:
    """On a floor in the plane: the flow's density at T, walls not taken out; mean actions half way."""
    (left, bottom), (right_end, top), T = game.state_low, game.state_high, game.horizon
    axes = [np.linspace(low, high, 161) for low, high in zip(game.state_low, game.state_high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(flow.at(T).log_density(points)).reshape(161, 161)
    image = middle.imshow(density.T, origin="lower", extent=(left, right_end, bottom, top), cmap="viridis")
    middle.get_figure().colorbar(image, ax=middle)
    middle.set(xlabel="first coordinate", ylabel="second coordinate", title=f"The crowd's density at t = {T}")
    some = points.reshape(161, 161, 2)[4::8, 4::8].reshape(-1, 2)
    some = some[game.floor.contains(some)]
    right.quiver(*some.T, *policy.mean_action(T // 2, some).T, color="#0072B2", angles="xy")
    right.set(xlabel="first coordinate", title=f"The policy's mean action at t = {T // 2}", aspect="equal")
    for axis in (middle, right):
        axis.locator_params(nbins=5)
        for low, high in game.floor.walls:
            axis.add_patch(Rectangle(low, *np.subtract(high, low), color="#555555", lw=0))


def draw_line(middle: Any, right: Any, game: Any, policy: AveragePolicy, flow: Flow) -> None:
    """The crowd over time and the policy, along the first coordinate, against the exact equilibrium."""
    exact = solve(game)
    linear = isinstance(exact.policy, AffinePolicy)  # a mixture of grid policies is no function of x to draw
    T = game.horizon
    steps = np.arange(T + 1)
    samples = flow.sample_path(4000, np.random.default_rng(0))[..., 0]
    exact_samples = exact.mean_field.sample_path(4000, np.random.default_rng(0))[..., 0]
    low, high = np.quantile(samples, [0.05, 0.95], axis=1)
    middle.fill_between(steps, low, high, color="#0072B2", alpha=0.25, lw=0, label="learnt flow, 5 % to 95 %")
    middle.plot(steps, flow.means[:, 0], "o-", color="#0072B2", ms=4, label="learnt flow, mean")
    for i, quantile in enumerate(np.quantile(exact_samples, [0.05, 0.95], axis=1)):
        middle.plot(steps, quantile, "--", color="black", lw=1, label=None if i else "exact, 5 % and 95 %")
    middle.plot(steps, [exact.mean_field.at(t).mean[0] for t in steps], "-", color="black", lw=1, label="exact, mean")
    middle.set(xlabel="t", ylabel="x" if game.dim == 1 else "x, first coordinate", title="The crowd")
    middle.legend()

    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, 4))
    for t, colour in zip(np.linspace(0, T - 1, 4).astype(int), colours, strict=True):
        x = np.tile(flow.means[t], (50, 1))  # along the first coordinate, through the crowd's mean
        low, high = np.quantile(samples[t], [0.01, 0.99])
        x[:, 0] = np.linspace(low, high, 50)
        right.plot(x[:, 0], policy.mean_action(t, x)[:, 0], color=colour, lw=3, alpha=0.6, label=f"t = {t}")
        if linear:
            right.plot(x[:, 0], exact.policy(t, x)[:, 0], "--", color="black", lw=1)
    if linear:
        right.plot([], [], "--", color="black", lw=1, label="exact")
    right.set(xlabel=middle.get_ylabel(), ylabel="mean action", title="The policy, where the crowd is")
    right.legend()


def main() -> None:
    """Read the command line, train, and leave a checkpoint whatever happens."""
    try:
        args = parse()
    except ValueError as error:
        sys.exit(f"error: {error}")
    try:
        train(args)
    except KeyboardInterrupt:
        print(f"\nstopped; go on with: python {sys.argv[0]} --resume {run_folder(args)}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, Divergence) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
