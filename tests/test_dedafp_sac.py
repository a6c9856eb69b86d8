"""The best responses of SAC are good, end at the horizon and stay in the box; the solver resumes to the bit.

What this solver shares with dedafp_ppo.py, line for line, is tested there.
"""

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mfg_envs import load_equilibrium
from mfg_envs.envs import CrowdVectorEnv
from mfg_envs.games import PriceImpact
from mfg_envs.policies import DeterministicPolicy

SOLVER = Path(__file__).parent.parent / "solvers" / "dedafp_sac.py"
spec = importlib.util.spec_from_file_location("dedafp_sac", SOLVER)
solver = importlib.util.module_from_spec(spec)
sys.modules["dedafp_sac"] = solver
spec.loader.exec_module(solver)

SHORT = solver.Args(
    iterations=2,
    oracle_every=0,
    num_agents=128,
    episodes=32,
    policy_steps=150,
    policy_batch=1024,
    flow_agents=1000,
    flow_steps=20,
    flow_batch=1024,
    oracle_agents=2000,
)
SMALL = {
    "episodes": 3,
    "gradient_steps": 2,
    "first_steps": 2,
    "num_agents": 32,
    "batch_size": 64,
    "policy_steps": 5,
    "flow_steps": 3,
    "flow_agents": 64,
}
TINY = dataclasses.replace(SHORT, iterations=3, **SMALL)

# A short run reaches about 1. Doing nothing is exploitable by 18.04.
BOUND = 4.0


def train(args, tmp_path, **changes):
    run = solver.train(dataclasses.replace(args, runs_dir=tmp_path, **changes))
    return run, json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two iterations, not to be written to."""
    return train(TINY, tmp_path_factory.mktemp("finished"), iterations=2)[0]


@pytest.fixture
def agent():
    """An agent of price impact with weights that say something everywhere."""
    torch.manual_seed(0)
    agent = solver.Agent(DeterministicPolicy(1, 1, 20, (0.0,), (1.0,), (10.0,), squash=True))
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    agent.centre[:20], agent.spread[:20] = torch.linspace(-5, -1, 20), torch.linspace(3, 1, 20)
    return agent


def test_short_run_reaches_the_bound(tmp_path):
    run, summary = train(SHORT, tmp_path)
    assert run.name == "lq_v0__dedafp_sac__1"
    assert summary["exploitability"] < BOUND
    assert load_equilibrium(run / "equilibrium.pt").exploitability == summary["exploitability"]
    assert (run / "equilibrium.png").stat().st_size > 10_000


def test_the_bound_is_missed_when_rewards_have_the_wrong_sign(tmp_path, monkeypatch):
    step = CrowdVectorEnv.step

    def losing(self, actions):
        observations, rewards, *rest = step(self, actions)
        return observations, -rewards, *rest

    monkeypatch.setattr(CrowdVectorEnv, "step", losing)
    _, summary = train(SHORT, tmp_path)
    assert summary["exploitability"] > BOUND


def test_the_critics_of_one_step_are_the_rewards(tmp_path):
    """Q(q, a) = -dt (c_a a^2 + c_q q^2) - c_g ((q + a dt)^2 + sigma^2 dt) in a crowd that does nothing."""
    changes = {"env_id": "price_impact_v0", "constants": ("horizon=1", "dt=0.2"), "iterations": 1, "flow_steps": 1}
    run, _ = train(SHORT, tmp_path, **changes, episodes=64, policy_steps=1)
    state = torch.load(run / "checkpoint.pt", weights_only=True)["agent"]
    agent = solver.Agent(DeterministicPolicy(1, 1, 1, (0.0,), (1.0,), (1.0,), squash=True))
    agent.load_state_dict(state)
    game = PriceImpact(horizon=1, dt=0.2)
    q = torch.linspace(0.6, 1.4, 20)[:, None]
    with torch.no_grad():
        seen = agent.features(torch.cat([q, torch.zeros_like(q)], dim=1))
        scaled, _ = agent.act(seen)
        learnt = agent.centre[0] + agent.spread[0] * agent.q(agent.critics, seen, scaled)
    a = scaled * game.action_high[0]
    reward = -game.dt * (game.c_a * a**2 + game.c_q * q**2)
    exact = reward - game.c_g * ((q + a * game.dt) ** 2 + game.sigma**2 * game.dt)
    for critic in learnt:
        assert (critic - exact[:, 0]).abs().mean() < 0.1 * exact.std()


def test_nothing_is_bootstrapped_at_the_horizon(agent):
    rewards, following = torch.randn(5), torch.randn(5, agent.actor.inputs)
    last, before = torch.full((5,), 19), torch.full((5,), 18)
    expected = (rewards - agent.centre[19]) / agent.spread[19]
    torch.testing.assert_close(agent.goal(last, rewards, following), expected)
    torch.manual_seed(1)
    found = agent.goal(before, rewards, following)
    torch.manual_seed(1)
    soft, _ = agent.soft_value(agent.targets, following)
    expected = (rewards + agent.centre[19] + agent.spread[19] * soft - agent.centre[18]) / agent.spread[18]
    torch.testing.assert_close(found, expected.detach())
    assert soft.std() > 0.01


def test_actions_stay_in_the_box_and_have_the_density_of_a_squashed_normal(agent):
    states = torch.linspace(-50, 50, 1001, dtype=torch.float32)[:, None]
    with torch.no_grad():
        seen = agent.features(torch.cat([states, torch.full_like(states, 0.5)], dim=1))
        actions, log_probs = agent.act(seen)
        last = agent.actor.net[:-1](seen)
        middle, half = -1.5, 3.5
        std = (middle + half * torch.tanh((agent.log_std(last) - middle) / half)).exp()
        law = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(agent.actor.net(seen).double(), std.double()),
            torch.distributions.TanhTransform(),
        )
        inner = actions.abs().squeeze(-1) < 0.999  # nearer to one, float32 holds no inverse of the tanh
        expected = law.log_prob(actions.double()).squeeze(-1)
    assert actions.abs().max() <= 1
    assert inner.sum() > 20
    torch.testing.assert_close(log_probs[inner].double(), expected[inner], rtol=1e-3, atol=1e-2)
    answered = agent.actor(10, states.numpy().astype(float))
    assert 9 < np.abs(answered).max() <= 10
    agent.actor.squash = False
    assert np.abs(agent.actor(10, states.numpy().astype(float))).max() > 10


def states_of(run):
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    return {
        f"{part}.{name}": v for part in ("agent", "policy", "flow", "learner") for name, v in checkpoint[part].items()
    }


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(finished, tmp_path):
    whole, whole_summary = train(TINY, tmp_path / "whole")
    half = Path(shutil.copytree(finished, tmp_path / "half"))
    resumed = solver.train(solver.parse(["--resume", str(half), "--iterations", "3"]))
    expected, found = states_of(whole), states_of(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    assert json.loads((resumed / "summary.json").read_text())["exploitability"] == whole_summary["exploitability"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("goal", "the loss of the critics of the best response in iteration 3 is nan"),
        ("act", "the loss of the critics of the best response in iteration 3 is nan"),
    ],
)
def test_nan_stops_the_run_and_keeps_the_checkpoint(method, message, finished, tmp_path, monkeypatch):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / "checkpoint.pt").read_bytes()
    function = getattr(solver.Agent, method)

    def broken(self, *arguments):
        answer = function(self, *arguments)
        return (answer[0], answer[1] * torch.nan) if method == "act" else answer * torch.nan

    monkeypatch.setattr(solver.Agent, method, broken)
    with pytest.raises(solver.Divergence, match=message):
        solver.train(solver.parse(["--resume", str(run), "--iterations", "3"]))
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env-id", "nothing_v0"), "cannot make nothing_v0"),
        (("--episodes", "1"), "--episodes must be at least 2"),
        (("--gradient-steps", "0"), "--gradient-steps must be at least 1"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--polyak", "0"), "--polyak must be in"),
        (("--polyak", "nan"), "--polyak must be in"),
        (("--target-entropy", "0.7"), "--target-entropy must be finite and below log 2"),
        (("--critic-learning-rate", "-1"), "--critic-learning-rate must be above 0"),
    ],
)
def test_bad_arguments_are_value_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        solver.train(dataclasses.replace(solver.parse(list(arguments)), runs_dir=tmp_path))
    assert not any(tmp_path.iterdir())


def test_games_have_defaults_of_their_own():
    assert solver.parse([]) == solver.Args() == solver.defaults("lq_v0")
    for env_id in solver.DEFAULTS:
        solver.check(solver.defaults(env_id))


def test_two_dimensions_with_walls(tmp_path, monkeypatch):
    full = solver.exploitability
    monkeypatch.setattr(solver, "exploitability", lambda *a, cells=12, **k: full(*a, **k, cells=12))
    args = dataclasses.replace(
        solver.defaults("four_rooms_v0"), iterations=2, oracle_every=2, oracle_cells=12, oracle_agents=1000, **SMALL
    )
    run, summary = train(args, tmp_path, constants=("horizon=4",))
    assert summary["exploitability"] > 0
    last = torch.load(run / "checkpoint.pt", weights_only=True)["history"][-1]
    assert last["errors/best_response"] > 0
