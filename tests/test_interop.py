import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mfg_envs import interop
from mfg_envs.equilibrium import grid
from mfg_envs.equilibrium.finite import finite_game
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic, PriceImpact

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "open_spiel_rooms.py"
spec = importlib.util.spec_from_file_location("open_spiel_rooms", BENCHMARK)
open_spiel_rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(open_spiel_rooms)

SMALL = {
    "beach": (BeachBar(), 101, 21, None),
    "price": (PriceImpact(), 40, 11, (-2.0, 3.0)),
    "lq": (LinearQuadratic(), 40, 11, (-2.5, 2.5)),
    "entropy": (FourRooms(horizon=10), 14, 4, None),
    "congestion": (FourRooms(crowd="congestion", horizon=10), 14, 4, None),
}


@pytest.fixture
def alg():
    """MFGLib's algorithms, where it is installed: first of its modules, as another order is an ImportError."""
    return pytest.importorskip("mfglib.alg")


def policies(game):
    random = np.random.default_rng(0).dirichlet(np.ones(game.shape[2]), size=game.shape[:2])
    return game.uniform(), random


def judged_by_both(setting):
    """Differences of exploitability, ours less MFGLib's, for the uniform and a random policy."""
    from mfglib.scoring import exploitability_score

    game, env = finite_game(*setting), interop.to_mfglib(*setting)
    differences = []
    for policy in policies(game):
        with interop.float64():
            theirs = exploitability_score(env, interop.to_mfglib_policy(policy))
        assert theirs > 0.01
        differences.append(game.exploitability(policy) - theirs)
    return differences


# --- the same figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SMALL.values(), ids=SMALL)
def test_mfglib_finds_the_same_exploitability(alg, setting):
    np.testing.assert_allclose(judged_by_both(setting), 0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("crowd", ["entropy", "congestion"])
def test_mfglib_finds_the_same_exploitability_in_the_large(alg, crowd):
    np.testing.assert_allclose(judged_by_both((FourRooms(crowd=crowd), 31, 7)), 0, atol=1e-8)


def test_mfglib_pushes_the_same_crowd(alg):
    from mfglib.utils import mean_field_from_policy

    for setting in (SMALL["lq"], SMALL["entropy"]):
        game, env = finite_game(*setting), interop.to_mfglib(*setting)
        for policy in policies(game):
            crowd = game.flow(policy)
            with interop.float64():
                theirs = mean_field_from_policy(interop.to_mfglib_policy(policy), env=env).numpy()
            np.testing.assert_allclose(theirs[:-1], crowd.played, atol=1e-12)
            np.testing.assert_allclose(theirs.sum(axis=2), crowd.masses, atol=1e-12)


def test_fictitious_play_of_mfglib_finds_the_oracles_beach_bar(alg):
    setting = (BeachBar(), 41, 11)
    game, env = finite_game(*setting), interop.to_mfglib(*setting)
    with interop.float64():
        found, gaps, _ = alg.FictitiousPlay().solve(env, max_iter=30, atol=None, rtol=None)
    policy = found[-1][:-1].numpy()
    policy /= policy.sum(axis=2, keepdims=True)
    assert game.exploitability(policy) == pytest.approx(gaps[-1], abs=1e-9)
    assert gaps[-1] < 0.02 * gaps[0]
    means = grid.solve(*setting, iterations=15).mean_field.means
    np.testing.assert_allclose(game.flow(policy).masses @ game.states, means, atol=0.01)


def test_mf_omo_runs(alg):
    """It descends by derivatives of our rewards."""
    env = interop.to_mfglib(BeachBar(horizon=10), 41, 11)
    with interop.float64():
        method = alg.MFOMO(optimizer={"name": "Adam", "config": {"lr": 0.01}})
        _, gaps, _ = method.solve(env, max_iter=30, atol=None, rtol=None)
    assert min(gaps) < 0.7 * gaps[0]
    with interop.float64(), pytest.raises(ValueError, match="read the crowd"):
        alg.MFOMO().solve(interop.to_mfglib(LinearQuadratic(horizon=3), 12, 3, (-2.5, 2.5)), max_iter=1)


# --- the environment -------------------------------------------------------------------------------------------------


def test_rewards_are_those_of_the_finite_game_and_differentiable(alg):
    rng = np.random.default_rng(0)
    for setting in ((BeachBar(), 12, 3), (PriceImpact(horizon=2), 8, 3, (-2.0, 3.0)), (FourRooms(), 8, 2)):
        game, env = finite_game(*setting), interop.to_mfglib(*setting)
        T, n, m = game.shape
        played = rng.dirichlet(np.ones(n * m)).reshape(n, m)
        played[3] = 0.0  # nobody there
        played /= played.sum()
        L = torch.tensor(played, requires_grad=True)
        np.testing.assert_allclose(env.reward(1, L).detach(), game.reward(1, played), atol=1e-13)
        np.testing.assert_allclose(
            env.reward(T, L).detach(),
            np.repeat(game.terminal_reward(played.sum(axis=1))[:, None], m, axis=1),
            atol=1e-13,
        )
        for t in (1, T):
            direction = torch.tensor(rng.normal(size=(n, m)) ** 2)  # not negative: inwards, where nobody is
            weights = torch.tensor(rng.normal(size=(n, m)))
            total = (weights * env.reward(t, L)).sum() + 0 * L.sum()
            (gradient,) = torch.autograd.grad(total, L)
            assert torch.isfinite(gradient).all()
            h, x = 1e-9, L.detach()
            moved = (weights * (env.reward(t, x + h * direction) - env.reward(t, x))).sum() / h
            assert (gradient * direction).sum().item() == pytest.approx(moved.item(), rel=1e-3, abs=1e-5)


def test_sizes_and_bounds_of_the_environment(alg):
    game, env = finite_game(PriceImpact(), 20, 5, (-2.0, 3.0)), interop.to_mfglib(PriceImpact(), 20, 5, (-2.0, 3.0))
    T, n, m = game.shape
    assert [env.T, *env.S, *env.A] == [T, n, m]
    P = env.prob(0, torch.full((n, m), 1 / (n * m), dtype=torch.float64))
    assert P.shape == (n, n, m)
    assert P.dtype == env.mu0.dtype == torch.float64
    assert P is env.prob(6, torch.zeros((n, m), dtype=torch.float64))
    np.testing.assert_allclose(P.sum(dim=0), 1, atol=1e-12)
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(50):
        L = torch.tensor(rng.dirichlet(np.full(n * m, 0.05)).reshape(n, m))
        largest = max(largest, *(env.reward(t, L).abs().max().item() for t in (0, T)))
    assert 0.5 * env.r_max < largest <= env.r_max


def test_the_default_dtype_is_restored(alg):
    assert torch.get_default_dtype() == torch.float32
    interop.to_mfglib(BeachBar(), 8, 3)
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(ValueError, match="bounds"):
        interop.to_mfglib(LinearQuadratic())
    assert torch.get_default_dtype() == torch.float32


def test_what_is_too_large_is_refused_with_the_figure(alg, monkeypatch):
    with pytest.raises(ValueError, match=r"2 x 5936 x 5936 x 25 numbers, would need 13\.1 GiB, the limit is max_gib"):
        interop.to_mfglib(FourRooms())
    with pytest.raises(ValueError, match=r"max_gib = 0\.001"):
        interop.to_mfglib(BeachBar(), 101, 21, max_gib=0.001)
    monkeypatch.setattr(torch.backends.opt_einsum, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"opt-einsum 45668 x 45668 numbers, would need 15\.5 GiB"):
        interop.to_mfglib(FourRooms(), 31, 7)
    interop.to_mfglib(BeachBar(), 20, 3)


def test_other_errors_are_named(alg):
    with pytest.raises(ValueError, match="bounds"):
        interop.to_mfglib(PriceImpact())
    with pytest.raises(ValueError, match="dimension 1 or 2"):
        interop.to_mfglib(LinearQuadratic(dim=3), bounds=(-1, 1))


# --- without MFGLib --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["mfglib", "torch"])
def test_a_missing_package_names_the_extra(monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == "mfglib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match="crosscheck"):
        interop.to_mfglib(BeachBar())


def test_float64_is_scoped():
    before = torch.get_default_dtype()
    with interop.float64():
        assert torch.zeros(1).dtype == torch.float64
    assert torch.get_default_dtype() == before
    with pytest.raises(ZeroDivisionError), interop.float64():
        1 / 0  # noqa: B018
    assert torch.get_default_dtype() == before


def test_policies_get_a_last_slice():
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 5))
    pi = interop.to_mfglib_policy(policy)
    assert pi.shape == (5, 5, 3)
    np.testing.assert_array_equal(pi[:-1], policy)
    np.testing.assert_allclose(pi[-1], 1 / 3)


# --- OpenSpiel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.0])
def test_open_spiel_finds_the_same_nash_conv(noise):
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python.mfg.algorithms.nash_conv import NashConv
    from open_spiel.python.mfg.games.factory import GAME_SETTINGS
    from open_spiel.python.policy import UniformRandomPolicy

    setting = {**GAME_SETTINGS["crowd_modelling_2d_four_rooms"], "noise_intensity": noise}
    theirs = pyspiel.load_game("mfg_crowd_modelling_2d", setting)
    nash_conv = NashConv(theirs, UniformRandomPolicy(theirs)).nash_conv()
    game, policy = open_spiel_rooms.four_rooms(noise)
    assert game.exploitability(policy) == pytest.approx(nash_conv, abs=1e-9)


def test_code_on_the_page_runs(alg, capsys):
    """Blocks are one session; what is printed is what the comments say."""
    page = (Path(__file__).parent.parent / "docs" / "crosscheck.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)), {})
    lines = capsys.readouterr().out.splitlines()
    assert [round(float(line), 4) for line in (lines[0], lines[1], lines[-2])] == [6.6209, 0.0009, 6.6209]
    assert abs(float(lines[-1])) < 1e-10
