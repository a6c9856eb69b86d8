"""The two baselines find the equilibrium, notice when a part is broken, and resume to the bit."""

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
from mfg_envs.envs import CrowdVectorEnv, simulate
from mfg_envs.equilibrium import Mixture, exploitability
from mfg_envs.games import BeachBar, LinearQuadratic

SOLVERS = Path(__file__).parent.parent / "solvers"
NAMES = ("fp_ppo", "dafp_ppo")


def load(name):
    spec = importlib.util.spec_from_file_location(name, SOLVERS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {name: load(name) for name in NAMES}

SHORT = {
    "iterations": 3,
    "num_agents": 128,
    "updates": 9,
    "learning_rate": 5e-3,
    "minibatch_size": 512,
    "log_std": -1.6,
    "policy_steps": 100,
    "policy_batch": 512,
    "crowd_agents": 1000,
    "oracle_every": 3,
    "oracle_cells": 60,
    "oracle_agents": 2000,
}
SMALL = {"updates": 2, "num_agents": 32, "policy_steps": 5, "crowd_agents": 64}
TINY = SHORT | SMALL | {"oracle_every": 0}

# A short run stays below, at 0.5 or 0.9. Without best responses it would stay near 18, which is doing nothing's;
# responding for ever to the crowd of those who do nothing gives 1.8 or more.
BOUND = 1.3


def args_of(solver, settings, **changes):
    """Those of the settings that the solver knows: simple fictitious play has no average policy to train."""
    known = {field.name for field in dataclasses.fields(solver.Args)}
    base = solver.defaults((settings | changes).get("env_id", "lq_v0"))
    return dataclasses.replace(base, **{name: v for name, v in (settings | changes).items() if name in known})


def train(solver, settings, folder, picture=False, **changes):
    with pytest.MonkeyPatch.context() as patch:
        if not picture:  # one takes as long as a short run
            patch.setattr(solver, "plot", lambda *arguments: None)
        run = solver.train(args_of(solver, settings, runs_dir=folder, **changes))
    return run, json.loads((run / "summary.json").read_text())


def history_of(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)["history"]


@pytest.fixture(scope="module", params=NAMES)
def solver(request):
    return MODULES[request.param]


@pytest.fixture(scope="module")
def shorts(tmp_path_factory):
    """The folders of a short run of each solver, not to be written to."""
    return {name: train(MODULES[name], SHORT, tmp_path_factory.mktemp(name), picture=True)[0] for name in NAMES}


@pytest.fixture(scope="module")
def finished(solver, tmp_path_factory):
    """The folder of a run of two iterations, not to be written to."""
    return train(solver, TINY, tmp_path_factory.mktemp("finished"), iterations=2)[0]


def test_short_run_reaches_the_bound_and_writes_what_it_promises(solver, shorts):
    run = shorts[solver.__name__]
    assert run.name == f"lq_v0__{solver.__name__}__1"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["exploitability"] < BOUND
    assert summary["exploitability_of_doing_nothing"] == pytest.approx(18.042031789551764, rel=0.01)
    assert (run / "equilibrium.png").stat().st_size > 10_000
    loaded = load_equilibrium(run / "equilibrium.pt")
    assert loaded.game == LinearQuadratic()
    assert loaded.exploitability == summary["exploitability"]
    again = exploitability(loaded.game, loaded.policy, num_agents=20_000, seed=7)
    assert again.value == pytest.approx(summary["exploitability"], abs=5 * summary["exploitability_stderr"] + 0.02)
    errors = {"best_response", "crowd", "crowd_reward"}
    if solver.__name__ == "dafp_ppo":
        errors |= {"average_policy", "average_policy_reward"}
    first, _, third = history_of(run)
    assert {name.removeprefix("errors/") for name in third if name.startswith("errors/")} == errors
    assert not any(name.startswith("errors/") for name in first)
    assert 0 < third["errors/crowd"] < 0.1


def test_the_first_best_response_is_the_same_in_both(shorts):
    """Both start in the crowd of those who do nothing, and with the same PPO."""
    first, other = (history_of(shorts[name])[0]["charts/best_response_return"] for name in NAMES)
    assert first == other


def test_the_crowd_is_that_of_the_answer(solver, shorts):
    """Also in the file: near the exact push-forward of its policy, and further from that of the last best response."""
    run = shorts[solver.__name__]
    loaded = load_equilibrium(run / "equilibrium.pt")
    assert loaded.mean_field.states.shape == (21, SHORT["crowd_agents"], 1)
    grid = solver.oracle_grid(loaded.game, solver.Args(oracle_cells=60))
    off = grid.total_variation(loaded.mean_field, grid.flow(loaded.policy)[0])
    assert off < 0.05
    actor = torch.load(run / "checkpoint.pt", weights_only=True)["responses"][-1]
    last = solver.DeterministicPolicy(1, 1, 20, (0.0,), (1.0,), (1.0,))
    last.load_state_dict(actor)
    assert grid.total_variation(loaded.mean_field, grid.flow(last)[0]) > 2 * off


def test_the_answer_of_simple_fictitious_play_is_the_mixture_of_its_best_responses(shorts):
    policy = load_equilibrium(shorts["fp_ppo"] / "equilibrium.pt").policy
    assert isinstance(policy, Mixture)
    assert policy.weights == pytest.approx(np.array([1, 2, 3]) / 6)  # linear averaging
    responses = torch.load(shorts["fp_ppo"] / "checkpoint.pt", weights_only=True)["responses"]
    for one, state in zip(policy.policies, responses, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    assert MODULES["fp_ppo"].mixture_of(policy.policies, "uniform").weights == pytest.approx(1 / 3)


def broken_best_response(solver, monkeypatch):
    """PPO learns to lose: rewards of the wrong sign."""
    step = CrowdVectorEnv.step

    def losing(self, actions):
        observations, rewards, *rest = step(self, actions)
        return observations, -rewards, *rest

    monkeypatch.setattr(CrowdVectorEnv, "step", losing)


def broken_crowd(solver, monkeypatch):
    """The crowd stays that of those who do nothing."""
    play, crowds = solver.simulate, []

    def stuck(*arguments, antithetic=False, **rest):
        played = play(*arguments, antithetic=antithetic, **rest)
        if antithetic:
            crowds.append(played)
        return crowds[0] if antithetic else played

    monkeypatch.setattr(solver, "simulate", stuck)


@pytest.mark.parametrize("break_it", [broken_best_response, broken_crowd])
def test_the_bound_is_missed_when_a_part_is_broken(break_it, solver, tmp_path, monkeypatch):
    break_it(solver, monkeypatch)
    assert train(solver, SHORT, tmp_path, oracle_every=0)[1]["exploitability"] > BOUND


def tensors(content, name=""):
    """All tensors in a checkpoint, by where they are."""
    if isinstance(content, torch.Tensor):
        return {name: content}
    parts = (
        content.items() if isinstance(content, dict) else enumerate(content) if type(content) in (list, tuple) else ()
    )
    return {place: tensor for key, part in parts for place, tensor in tensors(part, f"{name}/{key}").items()}


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(solver, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(solver, "plot", lambda *arguments: None)
    whole, whole_summary = train(solver, TINY, tmp_path / "whole")
    half = Path(shutil.copytree(finished, tmp_path / "half"))
    resumed = solver.train(solver.parse(["--resume", str(half), "--iterations", "3"]))
    assert resumed == half
    expected, found = (tensors(torch.load(run / "checkpoint.pt", weights_only=True)) for run in (whole, resumed))
    assert expected.keys() == found.keys()
    assert {"/crowd_states", "/crowd_actions"} < expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    summary = json.loads((resumed / "summary.json").read_text())
    assert summary["exploitability"] == whole_summary["exploitability"]


def test_a_game_with_walls(solver, tmp_path, monkeypatch):
    judge = solver.exploitability
    monkeypatch.setattr(solver, "exploitability", lambda *a, cells=None, **rest: judge(*a, **rest, cells=12))
    changes = {"env_id": "four_rooms_v0", "iterations": 2, "oracle_every": 2, "oracle_cells": 12, "oracle_agents": 100}
    run, summary = train(solver, SMALL, tmp_path, picture=True, **changes, constants=("horizon=4",))
    assert summary["exploitability"] > 0
    assert (run / "equilibrium.png").stat().st_size > 10_000
    first, second = history_of(run)
    assert "charts/exploitability" not in first
    assert 0 < second["errors/crowd"] < 1
    assert second["errors/crowd_reward"] > 0
    loaded = load_equilibrium(run / "equilibrium.pt")
    assert loaded.mean_field.floor == loaded.game.floor
    in_walls = np.array([[0.0, 0.2]])
    assert np.all(np.isinf(loaded.mean_field.at(4).log_density(in_walls)))


def test_crowd_errors_vanish_for_the_exact_crowd_and_fall_with_more_agents(solver):
    game = BeachBar(horizon=10)
    grid = solver.oracle_grid(game, solver.Args(oracle_cells=60))
    mixture = Mixture([lambda t, x, a=a: np.full((len(x), 1), a) for a in (0.5, -0.5)], [1, 2])
    answer = (mixture, mixture) if solver.__name__ == "dafp_ppo" else (mixture,)  # of which a clone that is perfect
    seed = (0,) if solver.__name__ == "dafp_ppo" else ()
    none = solver.crowd_errors(grid, *answer, grid.flow(mixture)[0], *seed)
    assert none == pytest.approx(dict.fromkeys(none, 0), abs=1e-12)
    few, many = (
        solver.crowd_errors(grid, *answer, simulate(game, mixture, num_agents=n, seed=1).mean_field(game), *seed)
        for n in (100, 10_000)
    )
    assert few["errors/crowd"] > 3 * many["errors/crowd"] > 0
    assert few["errors/crowd_reward"] > many["errors/crowd_reward"] > 0


def test_games_have_defaults_of_their_own(solver):
    args = solver.parse(["--env-id", "four_rooms_v0", "--updates", "3"])
    assert args == dataclasses.replace(solver.defaults("four_rooms_v0"), updates=3)
    assert args.crowd_agents == 10_000
    assert solver.parse([]) == solver.Args() == solver.defaults("lq_v0")
    for env_id in solver.DEFAULTS:
        solver.check(solver.defaults(env_id))


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("env_id", "nothing_v0", "cannot make nothing_v0"),
        ("constants", ("c_a=-1",), "c_a must be a finite number above 0"),
        ("constants", ("horizon",), "NAME=VALUE"),
        ("iterations", 0, "--iterations must be at least 1"),
        ("gae_lambda", float("nan"), "--gae-lambda must be in"),
        ("device", "cuda:99", "--device cuda:99"),
        ("crowd_agents", 0, "--crowd-agents must be at least 2"),
        ("crowd_agents", 11, "--crowd-agents must be even"),
        ("learning_rate", -1.0, "--learning-rate must be above 0"),
    ],
)
def test_bad_arguments_are_value_errors(solver, argument, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        solver.train(args_of(solver, {argument: value}, runs_dir=tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--crowd-agents", "4000"), "--crowd-agents is 4000, but the run in .* has 64"),  # 4000 is the default
        (("--iterations", "1"), "--iterations is 1, but the run in .* has done 2"),
    ],
)
def test_resume_refuses_a_contradiction(solver, arguments, message, finished):
    with pytest.raises(ValueError, match=message):
        solver.parse(["--resume", str(finished), *arguments])


def test_resume_needs_a_checkpoint(solver):
    with pytest.raises(ValueError, match="there is no checkpoint in nowhere"):
        solver.parse(["--resume", "nowhere"])


def test_a_run_is_not_overwritten_unasked_and_a_checkpoint_may_not_be_truncated(solver, finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / finished.name))
    with pytest.raises(ValueError, match="has a run already"):
        train(solver, TINY, tmp_path)
    (run / "checkpoint.pt").write_bytes((finished / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        solver.parse(["--resume", str(run)])


def test_nan_stops_the_run_and_keeps_the_checkpoint(solver, finished, tmp_path, monkeypatch):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / "checkpoint.pt").read_bytes()
    value = solver.Agent.value
    monkeypatch.setattr(solver.Agent, "value", lambda self, seen: value(self, seen) * float("nan"))
    with pytest.raises(solver.Divergence, match="the loss of the best response in iteration 3 is nan"):
        solver.train(solver.parse(["--resume", str(run), "--iterations", "3"]))
    assert (run / "checkpoint.pt").read_bytes() == before


def test_ctrl_c_leaves_the_checkpoint_and_says_how_to_resume(solver, finished, tmp_path, monkeypatch, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / "checkpoint.pt").read_bytes()

    def interrupted(self, seen):
        raise KeyboardInterrupt

    monkeypatch.setattr(solver.Agent, "value", interrupted)
    monkeypatch.setattr(sys, "argv", [solver.__file__, "--resume", str(run), "--iterations", "3"])
    with pytest.raises(SystemExit) as stop:
        solver.main()
    assert stop.value.code == 130
    assert f"--resume {run}" in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == before
