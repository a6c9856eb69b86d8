"""The solver finds the equilibrium, notices when a part of it is broken, and resumes to the bit."""

import dataclasses
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from mfg_envs import load_equilibrium
from mfg_envs.envs import CrowdVectorEnv
from mfg_envs.equilibrium import Mixture, best_response, exploitability, solve
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic
from mfg_envs.mean_field import Flow
from mfg_envs.policies import DeterministicPolicy

SOLVER = Path(__file__).parent.parent / "solvers" / "dedafp_ppo.py"
spec = importlib.util.spec_from_file_location("dedafp_ppo", SOLVER)
solver = importlib.util.module_from_spec(spec)
sys.modules["dedafp_ppo"] = solver
spec.loader.exec_module(solver)

SHORT = solver.Args(
    iterations=3,
    num_agents=256,
    updates=12,
    learning_rate=4e-3,
    minibatch_size=1024,
    log_std=-1.6,
    policy_steps=200,
    policy_batch=1024,
    flow_agents=1000,
    flow_steps=30,
    flow_batch=1024,
    oracle_agents=2000,
)
SMALL = {"updates": 2, "num_agents": 32, "policy_steps": 5, "flow_steps": 3, "flow_agents": 64}
TINY = dataclasses.replace(SHORT, iterations=3, **SMALL)

# A short run reaches about 0.4. Without best responses it would stay near 18, which is doing nothing's; responding for
# ever to the crowd of those who do nothing gives 2.4.
BOUND = 1.0


def train(args, tmp_path, **changes):
    run = solver.train(dataclasses.replace(args, runs_dir=tmp_path, **changes))
    return run, json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two iterations, not to be written to."""
    return train(TINY, tmp_path_factory.mktemp("finished"), iterations=2)[0]


def test_short_run_reaches_the_bound_and_writes_what_it_promises(tmp_path):
    run, summary = train(SHORT, tmp_path)
    assert summary["exploitability"] < BOUND
    assert summary["game"] == "LinearQuadratic"
    assert LinearQuadratic(**summary["constants"]) == LinearQuadratic()
    assert summary["exploitability_of_doing_nothing"] == pytest.approx(18.042031789551764, rel=0.01)
    assert {"seed", "exploitability_stderr", "policy_return", "seconds", "versions"} <= summary.keys()
    assert (run / "equilibrium.png").stat().st_size > 10_000
    loaded = load_equilibrium(run / "equilibrium.pt")
    assert loaded.game == LinearQuadratic()
    assert loaded.exploitability == summary["exploitability"]
    again = exploitability(loaded.game, loaded.policy, num_agents=20_000, seed=7)
    assert again.value == pytest.approx(summary["exploitability"], abs=5 * summary["exploitability_stderr"] + 0.02)
    assert loaded.policy(0, np.zeros((3, 1))).shape == (3, 1)


def broken_best_response(monkeypatch):
    """PPO learns to lose: rewards of the wrong sign."""
    step = CrowdVectorEnv.step

    def losing(self, actions):
        observations, rewards, *rest = step(self, actions)
        return observations, -rewards, *rest

    monkeypatch.setattr(CrowdVectorEnv, "step", losing)


def broken_cloning(monkeypatch):
    """The average policy learns the mirror image of the actions."""
    log_prob = solver.AveragePolicy.log_prob
    monkeypatch.setattr(solver.AveragePolicy, "log_prob", lambda self, t, x, a: log_prob(self, t, x, -a))


def broken_flow(monkeypatch):
    """The flow never leaves the crowd of those who do nothing."""
    standardise, log_prob = solver.Flow.standardise, solver.Flow.log_prob
    monkeypatch.setattr(
        solver.Flow,
        "standardise",
        lambda self, x, a, weight=1.0: None if self.mean_actions.any() else standardise(self, x, a + 1),
    )
    monkeypatch.setattr(solver.Flow, "log_prob", lambda self, t, x: 0 * log_prob(self, t, x))


@pytest.mark.parametrize("break_it", [broken_best_response, broken_cloning, broken_flow])
def test_the_bound_is_missed_when_a_part_is_broken(break_it, tmp_path, monkeypatch):
    break_it(monkeypatch)
    _, summary = train(SHORT, tmp_path)
    assert summary["exploitability"] > BOUND


PARTS = ("agent", "policy", "flow", "learner")


def states_of(run):
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": v for part in PARTS for name, v in checkpoint[part].items()}


def test_the_flow_is_the_running_average_of_the_one_that_learns(tmp_path):
    """The first step counts fully, the second 1 / (1 + MEMORY); both are standardised by the same crowd."""

    def learnt(steps):
        run, _ = train(TINY, tmp_path / str(steps), iterations=1, flow_steps=steps)
        checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
        return checkpoint["flow"], checkpoint["learner"]

    (one, first), (two, second) = learnt(1), learnt(2)
    weight, moved = 1 / (1 + solver.MEMORY), 0.0
    for name, value in one.items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=0)
        if name in ("location", "scale", "mean_actions"):
            torch.testing.assert_close(two[name], second[name], rtol=0, atol=0)
        else:
            torch.testing.assert_close(two[name], first[name] + weight * (second[name] - first[name]))
            moved = max(moved, float((second[name] - first[name]).abs().max()))
    assert moved > 1e-3


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(finished, tmp_path):
    whole, whole_summary = train(TINY, tmp_path / "whole")
    half = Path(shutil.copytree(finished, tmp_path / "half"))
    resumed = solver.train(solver.parse(["--resume", str(half), "--iterations", "3"]))
    assert resumed == half
    expected, found = states_of(whole), states_of(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    summary = json.loads((resumed / "summary.json").read_text())
    assert summary["exploitability"] == whole_summary["exploitability"]


def test_seeds_averaging_and_constants_have_an_effect(finished, tmp_path):
    short = dataclasses.replace(TINY, iterations=2)
    figures = [json.loads((finished / "summary.json").read_text())["exploitability"]]  # linear
    figures.append(train(short, tmp_path / "b", seed=2)[1]["exploitability"])
    figures += [train(short, tmp_path / how, averaging=how)[1]["exploitability"] for how in ("uniform", "quadratic")]
    assert len(set(figures)) == 4
    constants = train(short, tmp_path / "d", constants=("horizon=5", "A_bar=0.2"))[1]["constants"]
    assert (constants["horizon"], constants["A_bar"]) == (5, 0.2)


def test_the_mean_is_played_unless_draws_are_asked_for(tmp_path):
    """Costs are convex in the action: noise in it is a loss, and the learnt crowd is that of what is played."""
    runs = {head: train(SHORT, tmp_path / head, average_policy=head) for head in ("mean", "gaussian")}
    answers = {head: load_equilibrium(run / "equilibrium.pt").policy for head, (run, _) in runs.items()}
    x = np.zeros((1000, 1))
    assert isinstance(answers["mean"], DeterministicPolicy)
    assert np.ptp(answers["mean"](0, x)) < 1e-5
    assert answers["gaussian"].arguments["components"] == 1  # one Gaussian, the paper's
    assert np.ptp(answers["gaussian"](0, x)) > 0.01
    assert runs["mean"][1]["exploitability"] < runs["gaussian"][1]["exploitability"]


def test_two_dimensions_and_a_mixture_head(tmp_path):
    linear_quadratic = {"constants": ("dim=2", "B=[[0.2],[0.1]]"), "iterations": 2}
    run, summary = train(TINY, tmp_path, **linear_quadratic, average_policy="mixture", components=2, waves=3)
    assert np.isfinite(summary["exploitability"])
    assert load_equilibrium(run / "equilibrium.pt").policy.arguments["components"] == 2


def test_games_have_defaults_of_their_own():
    args = solver.parse(["--env-id", "four_rooms_v0", "--updates", "3"])
    assert args == dataclasses.replace(solver.defaults("four_rooms_v0"), updates=3)
    assert args.gae_lambda == 0.8
    assert solver.parse([]) == solver.Args() == solver.defaults("lq_v0")
    for env_id in solver.DEFAULTS:
        solver.check(solver.defaults(env_id))


@pytest.mark.parametrize(("env_id", "constants"), [("beach_bar_v0", ()), ("four_rooms_v0", ("crowd=congestion",))])
def test_games_with_a_floor(env_id, constants, tmp_path, monkeypatch):
    full = solver.exploitability
    cells = []

    def coarse(*arguments, **resolution):
        cells.append(resolution.pop("cells", None))
        return full(*arguments, **resolution, cells=12)

    monkeypatch.setattr(solver, "exploitability", coarse)
    args = dataclasses.replace(solver.defaults(env_id), iterations=2, oracle_every=2, oracle_cells=13, **SMALL)
    run, summary = train(args, tmp_path, constants=(*constants, "horizon=4"))
    assert summary["exploitability"] > 0
    assert summary["constants"]["horizon"] == 4
    assert (run / "equilibrium.png").stat().st_size > 10_000
    first, second = torch.load(run / "checkpoint.pt", weights_only=True)["history"]
    assert "charts/exploitability" not in first
    assert {"charts/exploitability", "errors/best_response", "errors/leak"} <= second.keys()
    for error in ("errors/average_policy", "errors/flow"):
        assert 0 < second[error] < 1
        assert second[f"{error}_reward"] > 0
    assert second["errors/best_response"] > 0
    assert cells == [13, 13, None, None]  # doing nothing, iteration 2, and both at the end


def test_table_mirrors_what_leaks_past_the_border():
    """Of a normal law that reaches beyond the beach, the table is the fold, which is what reflection makes of it."""
    game, mean, std = BeachBar(horizon=1), -0.92, 0.08
    flow = Flow(1, 1, 1).eval()
    flow.location.fill_(mean)
    flow.scale.fill_(std)
    table, leak = solver.tabulate(flow, game)
    law = scipy.stats.norm(mean, std)
    assert leak == pytest.approx(law.cdf(-1), abs=2e-4)  # a midpoint rule is off by h^2/24 times the slope at its end
    x = np.linspace(-0.99, -0.7, 50)
    np.testing.assert_allclose(np.exp(table.at(1).log_density(x[:, None])), law.pdf(x) + law.pdf(-2 - x), rtol=2e-3)


def test_table_keeps_all_mass_and_none_of_it_in_walls():
    game = FourRooms(horizon=1)
    flow = Flow(2, 1, 2).eval()
    flow.scale.fill_(0.3)  # around the middle of the cross: most of it is in walls or near them
    table, leak = solver.tabulate(flow, game)
    points = np.random.default_rng(0).normal(size=(100_000, 2)) * 0.3
    assert leak == pytest.approx(1 - game.floor.contains(points).mean(), abs=5e-3)
    assert table.masses.sum(axis=1) == pytest.approx(1)
    # The wall between two rooms: its mass goes to both sides of it alike, next to it.
    beside, away = np.array([[0.06, 0.2], [0.2, 0.06]]), np.array([[0.16, 0.2], [0.2, 0.16]])
    raw = flow.at(1)
    assert np.all(table.at(1).log_density(beside) > raw.log_density(beside) + 0.5)
    np.testing.assert_allclose(table.at(1).log_density(away), raw.log_density(away), atol=0.05)
    assert np.all(np.isinf(table.at(1).log_density(np.array([[0.0, 0.2]]))))


def test_a_game_without_a_floor_sees_the_flow_itself():
    flow = Flow(1, 20, 1)
    assert solver.tabulate(flow, LinearQuadratic()) == (flow, 0.0)


@pytest.mark.parametrize("game", [LinearQuadratic(horizon=5), BeachBar(horizon=5)])
def test_response_error_is_zero_for_the_best_response_and_positive_for_others(game):
    flow = Flow(1, 5, 1).eval()
    flow.scale.fill_(0.3)
    crowd, _ = solver.tabulate(flow, game)
    grid = solver.oracle_grid(game, solver.Args(oracle_cells=60))
    best = best_response(game, crowd, **({"cells": 60} if game.floor else {})).policy
    assert solver.response_error(game, grid, best, crowd, 1000, 0) == pytest.approx(0, abs=1e-5)
    assert solver.response_error(game, grid, lambda t, x: np.full((len(x), 1), -1.0), crowd, 1000, 0) > 0.01


@pytest.mark.parametrize("game", [LinearQuadratic(), BeachBar(), FourRooms(horizon=6)])
def test_crowd_errors_vanish_where_nothing_is_lost(game):
    """One best response, cloned as it is, and the flow is its crowd: no error but of the draws. Else there is one."""
    args = dataclasses.replace(solver.defaults("lq_v0"), oracle_cells=60)
    grid, sizes = solver.oracle_grid(game, args), (game.dim, game.action_dim, game.horizon)
    right, left = (lambda t, x, a=a: np.full((len(x), game.action_dim), a) for a in (0.5, -0.5))
    crowd, _ = grid.flow(right)
    none = solver.crowd_errors(grid, Mixture([right], [1]), right, crowd, 0)
    assert none == pytest.approx(dict.fromkeys(none, 0), abs=1e-12)
    cloned_badly = solver.crowd_errors(grid, Mixture([right, left], [1, 1]), right, crowd, 0)
    assert cloned_badly["errors/flow"] == pytest.approx(0, abs=1e-12)
    assert 0.05 < cloned_badly["errors/average_policy"] < 1
    assert cloned_badly["errors/average_policy_reward"] > 0.01
    flow = Flow(sizes[0], sizes[2], sizes[1]).eval()
    frozen, _ = solver.tabulate(flow, game)
    wide = solver.crowd_errors(grid, Mixture([right], [1]), right, frozen, 0)
    assert wide["errors/average_policy"] == pytest.approx(0, abs=1e-12)
    assert 0.05 < wide["errors/flow"] < 1
    assert wide["errors/flow_reward"] > 0.01


def test_the_grid_of_games_without_a_floor_reaches_far_enough():
    """Its borders are 4 standard deviations of the equilibrium away; in two dimensions there is no such grid."""
    game = LinearQuadratic()
    grid = solver.oracle_grid(game, solver.Args())
    crowd = solve(game).mean_field
    spread = 4 * crowd.covariances[:, 0, 0] ** 0.5
    assert grid.mesh.floor.low[0] < (crowd.means[:, 0] - spread).min()
    assert (crowd.means[:, 0] + spread).max() < grid.mesh.floor.high[0]
    assert (
        solver.oracle_grid(LinearQuadratic(dim=2, A=((0.9, 0.1), (0.0, 0.8)), B=((0.2,), (0.3,))), solver.Args())
        is None
    )


def run_command(*arguments, cwd):
    return subprocess.run([sys.executable, str(SOLVER), *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env-id", "nothing_v0"), "cannot make nothing_v0"),
        (("--constants", "c_y=1"), "c_y"),
        (("--constants", "c_a=-1"), "c_a must be a finite number above 0"),
        (("--constants", "horizon"), "NAME=VALUE"),
        (("--iterations", "0"), "--iterations must be at least 1"),
        (("--updates", "0"), "--updates must be at least 1"),
        (("--policy-steps", "0"), "--policy-steps must be at least 1"),
        (("--flow-steps", "0"), "--flow-steps must be at least 1"),
        (("--gae-lambda", "nan"), "--gae-lambda must be in"),
        (("--resume", "nowhere"), "there is no checkpoint in nowhere"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--num-agents", "1"), "--num-agents must be at least 2"),
        (("--flow-agents", "11"), "--flow-agents must be even"),
        (("--learning-rate", "-1"), "--learning-rate must be above 0"),
        (("--seed", "-1"), "--seed must be at least 0"),
    ],
)
def test_bad_arguments_are_value_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        solver.train(dataclasses.replace(solver.parse(list(arguments)), runs_dir=tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_run_is_not_overwritten_unasked(finished, tmp_path):
    shutil.copytree(finished, tmp_path / finished.name)
    with pytest.raises(ValueError, match="has a run already"):
        train(TINY, tmp_path, iterations=1)
    _, summary = train(TINY, tmp_path, iterations=1, overwrite=True)
    assert summary["iterations"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--updates", "14"), "--updates is 14, but the run in .* has 2"),  # 14 is the default
        (("--seed", "7"), "--seed is 7, but"),
        (("--env-id", "four_rooms_v0"), "--env-id is 'four_rooms_v0', but the run in .* has 'lq_v0'"),
        (("--constants", "A=0.8"), "--constants is .*A=0.8.*, but"),
        (("--iterations", "1"), "--iterations is 1, but the run in .* has done 2"),
    ],
)
def test_resume_refuses_a_contradiction(arguments, message, finished):
    with pytest.raises(ValueError, match=message):
        solver.parse(["--resume", str(finished), *arguments])


def test_resume_refuses_a_truncated_checkpoint(finished, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes((finished / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        solver.parse(["--resume", str(tmp_path)])


def not_a_number(function):
    return lambda *arguments: function(*arguments) * float("nan")


@pytest.mark.parametrize(
    ("owner", "method", "message"),
    [
        ("Agent", "value", "the loss of the best response in iteration 3 is nan"),
        ("AveragePolicy", "log_prob", "the loss of the average policy in iteration 3 is nan"),
        ("Flow", "log_prob", "the loss of the flow in iteration 3 is nan"),
    ],
)
def test_nan_stops_the_run_and_keeps_the_checkpoint(owner, method, message, finished, tmp_path, monkeypatch):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / "checkpoint.pt").read_bytes()
    part = getattr(solver, owner)
    monkeypatch.setattr(part, method, not_a_number(getattr(part, method)))
    with pytest.raises(solver.Divergence, match=message):
        solver.train(solver.parse(["--resume", str(run), "--iterations", "3"]))
    assert (run / "checkpoint.pt").read_bytes() == before


def test_a_gradient_that_is_infinite_changes_nothing():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight])
    with pytest.raises(solver.Divergence, match="the gradient of the loss of the flow is"):
        solver.descend((weight.abs() + 0).sqrt().sum(), optimizer, "flow", 0.5)
    assert weight.item() == 0


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(tmp_path):
    command = [sys.executable, str(SOLVER), "--updates", "2", "--num-agents", "32", "--policy-steps", "5"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )
    checkpoint = tmp_path / "runs" / "lq_v0__dedafp_ppo__1" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume runs/lq_v0__dedafp_ppo__1" in err
    assert "Traceback" not in err
    result = run_command("--resume", "runs/lq_v0__dedafp_ppo__1", "--iterations", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run_command("--env-id", "nothing_v0", cwd=tmp_path).stderr.startswith("error: cannot make nothing_v0")
