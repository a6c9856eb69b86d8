"""The solver finds the equilibrium, notices when a part of it is broken, and resumes to the bit."""

import dataclasses
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mfg_envs import load_equilibrium
from mfg_envs.envs import CrowdVectorEnv
from mfg_envs.equilibrium import exploitability
from mfg_envs.games import LinearQuadratic

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
TINY = dataclasses.replace(SHORT, iterations=4, updates=2, num_agents=32, policy_steps=5, flow_steps=3, flow_agents=64)

# A short run reaches about 0.4. Without best responses it would stay near 18, which is doing nothing's; responding for
# ever to the crowd of those who do nothing gives 2.4.
BOUND = 1.0


def train(args, tmp_path, **changes):
    run = solver.train(dataclasses.replace(args, runs_dir=tmp_path, **changes))
    return run, json.loads((run / "summary.json").read_text())


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
        solver.Flow, "standardise", lambda self, x, a: None if self.mean_actions.any() else standardise(self, x, a + 1)
    )
    monkeypatch.setattr(solver.Flow, "log_prob", lambda self, t, x: 0 * log_prob(self, t, x))


@pytest.mark.parametrize("break_it", [broken_best_response, broken_cloning, broken_flow])
def test_the_bound_is_missed_when_a_part_is_broken(break_it, tmp_path, monkeypatch):
    break_it(monkeypatch)
    _, summary = train(SHORT, tmp_path)
    assert summary["exploitability"] > BOUND


def states_of(run):
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": v for part in ("agent", "policy", "flow") for name, v in checkpoint[part].items()}


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    whole, whole_summary = train(TINY, tmp_path / "whole")
    half, _ = train(TINY, tmp_path / "half", iterations=2)
    resumed = solver.train(solver.parse(["--resume", str(half), "--iterations", "4"]))
    assert resumed == half
    expected, found = states_of(whole), states_of(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    summary = json.loads((resumed / "summary.json").read_text())
    assert summary["exploitability"] == whole_summary["exploitability"]


def test_seeds_and_averaging_have_an_effect(tmp_path):
    base = train(TINY, tmp_path / "a")[1]["exploitability"]
    assert train(TINY, tmp_path / "b", seed=2)[1]["exploitability"] != base
    assert train(TINY, tmp_path / "c", averaging="uniform")[1]["exploitability"] != base
    constants = train(TINY, tmp_path / "d", constants=("horizon=5", "A_bar=0.2"))[1]["constants"]
    assert (constants["horizon"], constants["A_bar"]) == (5, 0.2)


def test_two_dimensions_and_a_mixture_head(tmp_path):
    _, summary = train(TINY, tmp_path, constants=("dim=2", "B=[[0.2],[0.1]]"), components=2, iterations=2)
    assert np.isfinite(summary["exploitability"])


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


def test_a_run_is_not_overwritten_unasked(tmp_path):
    train(TINY, tmp_path, iterations=1)
    with pytest.raises(ValueError, match="has a run already"):
        train(TINY, tmp_path, iterations=1)
    train(TINY, tmp_path, iterations=1, overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--updates", "14"), "--updates is 14, but the run in .* has 2"),  # 14 is the default
        (("--seed", "7"), "--seed is 7, but"),
        (("--iterations", "1"), "--iterations is 1, but the run in .* has done 2"),
    ],
)
def test_resume_refuses_a_contradiction(arguments, message, tmp_path):
    run, _ = train(TINY, tmp_path, iterations=2)
    with pytest.raises(ValueError, match=message):
        solver.parse(["--resume", str(run), *arguments])


def test_resume_refuses_a_truncated_checkpoint(tmp_path):
    run, _ = train(TINY, tmp_path, iterations=1)
    checkpoint = run / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        solver.parse(["--resume", str(run)])


def test_nan_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    run, _ = train(TINY, tmp_path, iterations=1)
    before = (run / "checkpoint.pt").read_bytes()
    log_prob = solver.Flow.log_prob
    monkeypatch.setattr(solver.Flow, "log_prob", lambda self, t, x: log_prob(self, t, x) * float("nan"))
    with pytest.raises(solver.Divergence, match="flow in iteration 2 is nan"):
        solver.train(solver.parse(["--resume", str(run), "--iterations", "2"]))
    assert (run / "checkpoint.pt").read_bytes() == before


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(tmp_path):
    command = [sys.executable, str(SOLVER), "--updates", "2", "--num-agents", "32", "--policy-steps", "5"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
