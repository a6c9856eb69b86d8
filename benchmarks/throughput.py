"""Agent-steps per second of the environments beside a ParallelEnv that does nothing, in one run.

    python benchmarks/throughput.py

"Does nothing" has the same dict shell (actions stacked, fresh dicts made) around zeros, written as fast as we can. Each
figure is the best of interleaved repeats, so that a noisy machine hurts both sides alike; the ratio is what counts.
Writes benchmarks/results/throughput.csv. With the extra `bench`, other suites are measured in the same run, into
throughput_others.csv beside it: their games differ, so read those figures as orders of magnitude.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tables
from pettingzoo import ParallelEnv

from mfg_envs.all_modules import all_modules
from mfg_envs.envs import CrowdVectorEnv

RESULTS = Path(__file__).parent / "results"


class DoesNothing(ParallelEnv[str, np.ndarray, np.ndarray]):
    """The dict shell alone."""

    def __init__(self, num_agents: int, observation_dim: int, horizon: int) -> None:
        self.possible_agents = [f"agent_{i}" for i in range(num_agents)]
        self.shape, self.horizon = (num_agents, observation_dim), horizon
        self.flags = {flag: dict.fromkeys(self.possible_agents, flag) for flag in (False, True)}
        self.pick = itemgetter(*self.possible_agents)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Zeros."""
        self.agents, self.t = self.possible_agents[:], 0
        observations = np.zeros(self.shape, dtype=np.float32)
        return dict(zip(self.agents, observations, strict=True)), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> Any:
        """Actions stacked, zeros in fresh dicts."""
        agents = self.possible_agents
        np.concatenate(self.pick(actions)).reshape(len(agents), -1)
        self.t += 1
        observations = np.zeros(self.shape, dtype=np.float32)
        return (
            dict(zip(agents, observations, strict=True)),
            dict(zip(agents, np.zeros(len(agents)).tolist(), strict=True)),
            self.flags[self.t == self.horizon].copy(),
            self.flags[False].copy(),
            {agent: {} for agent in agents},
        )


def seconds_per_step(reset: Callable[[], object], step: Callable[[], object], horizon: int, steps: int) -> float:
    """Mean time of a step over whole episodes, resets not counted."""
    spent, done = 0.0, 0
    while done < steps:
        reset()
        start = time.perf_counter()
        for _ in range(horizon):
            step()
        spent += time.perf_counter() - start
        done += horizon
    return spent / done


def measure(module: Any, num_agents: int, repeats: int) -> dict[str, float]:
    """Best agent-steps/s of doing nothing, of the dict API and of the array API."""
    parallel = module.parallel_env(num_agents=num_agents)
    vector = CrowdVectorEnv(parallel.game, num_agents)
    game = parallel.game
    idle = DoesNothing(num_agents, game.dim + 1, game.horizon)
    rng = np.random.default_rng(0)
    drawn = rng.uniform(game.action_low, game.action_high, (16, num_agents, game.action_dim)).astype(np.float32)
    arrays = cycle(drawn)  # random actions, made beforehand
    dicts = cycle([dict(zip(parallel.possible_agents, a, strict=True)) for a in drawn])
    rivals: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "nothing": (idle.reset, lambda: idle.step(next(dicts))),
        "dict_api": (lambda: parallel.reset(seed=0), lambda: parallel.step(next(dicts))),
        "array_api": (lambda: vector.reset(seed=0), lambda: vector.step(next(arrays))),
    }
    best = dict.fromkeys(rivals, np.inf)
    steps = max(game.horizon, min(2000, 200_000 // num_agents))
    for _ in range(repeats):
        for name, (reset, step) in rivals.items():
            best[name] = min(best[name], seconds_per_step(reset, step, game.horizon, steps))
    return {name: num_agents / seconds for name, seconds in best.items()}


def simple_spread(num_agents: int, steps: int) -> float:
    """Agent-steps/s of MPE2's simple_spread through its ParallelEnv."""
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(N=num_agents, max_cycles=steps, continuous_actions=True)
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    return num_agents / seconds_per_step(lambda: env.reset(seed=0), lambda: env.step(actions), steps, steps)


def navigation(num_agents: int, steps: int) -> float:
    """Agent-steps/s of VMAS's navigation, one environment, collisions off."""
    import torch
    import vmas

    torch.set_num_threads(1)
    size = float(num_agents)  # room to place them all apart
    world = {"collisions": False, "world_spawning_x": size, "world_spawning_y": size}
    env = vmas.make_env("navigation", num_envs=1, n_agents=num_agents, seed=0, **world)
    actions = env.get_random_actions()
    return num_agents / seconds_per_step(env.reset, lambda: env.step(actions), steps, steps)


def battle(num_agents: int, steps: int) -> float:
    """Agent-steps/s of MAgent2's battle through its ParallelEnv; its map decides how many agents there are."""
    from magent2.environments import battle_v4

    env = battle_v4.parallel_env(map_size=18 if num_agents <= 100 else 46, max_cycles=steps)
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    done, start = 0, time.perf_counter()
    while env.agents and done < steps * len(env.possible_agents):
        done += len(env.agents)
        env.step({agent: actions[agent] for agent in env.agents})
    return done / (time.perf_counter() - start)


def measure_others(agents: list[int]) -> list[dict[str, Any]]:
    """A row for each other suite that is installed and each number of agents up to 1,000."""
    rows = []
    for suite, rival in (("mpe2", simple_spread), ("vmas", navigation), ("magent2", battle)):
        if importlib.util.find_spec(suite) is None:
            continue
        for num_agents in (n for n in agents if n <= 1000):
            speed = rival(num_agents, 5 if num_agents >= 1000 else 50)
            rows.append({"suite": suite, "game": rival.__name__, "num_agents": num_agents, "agent_steps": round(speed)})
            print(f"{suite} {rival.__name__:20} | {num_agents:5} | {speed:13,.0f}")
    return rows


def main() -> None:
    """Measure, print a table, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rows = []
    print("agent-steps/s        |     N |  does nothing |      dict API | ratio |     array API")
    for name, module in all_modules.items():
        for num_agents in options.agents:
            speed = measure(module, num_agents, options.repeats)
            ratio = speed["dict_api"] / speed["nothing"]
            print(
                f"{name:20} | {num_agents:5} | {speed['nothing']:13,.0f} | {speed['dict_api']:13,.0f} "
                f"| {ratio:5.2f} | {speed['array_api']:13,.0f}"
            )
            rows.append(
                {"game": name, "num_agents": num_agents}
                | {k: round(v) for k, v in speed.items()}
                | {"ratio": round(ratio, 3)}
            )
    tables.write(RESULTS / "throughput.csv", rows)
    others = measure_others(options.agents)
    if others:
        tables.write(RESULTS / "throughput_others.csv", others)


if __name__ == "__main__":
    main()
