import importlib.util
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy import sparse

from mfg_envs.equilibrium import grid
from mfg_envs.equilibrium.finite import FiniteGame, finite_game
from mfg_envs.equilibrium.grid import GridPolicy, Model
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic, PriceImpact
from mfg_envs.games.base import Game
from mfg_envs.games.floor_plan import FloorPlan

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "open_spiel_rooms.py"
spec = importlib.util.spec_from_file_location("open_spiel_rooms", BENCHMARK)
open_spiel_rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(open_spiel_rooms)

LINE = FloorPlan((-1.0,), (1.0,))


@dataclass(frozen=True)
class Gusts(Game):
    """Noise that grows with the action, a drift that turns with t, and a reward at the end."""

    horizon: int = 3
    dim: ClassVar[int] = 1
    action_dim: ClassVar[int] = 1
    floor: ClassVar[FloorPlan] = LINE
    action_low: ClassVar[np.ndarray] = np.array([0.0])
    action_high: ClassVar[np.ndarray] = np.array([1.0])
    reward_reads: ClassVar[frozenset[str]] = frozenset({"log_density", "mean_action"})

    def initial_state(self, z):
        return LINE.reflect(0 * z + 0.2, 0.3 * z)

    def step(self, t, x, a, mu, z):
        a = self.project_action(a)
        return LINE.reflect(x, 0.3 * (-1) ** t * a * x + 0.3 * (1 + a) * z)

    def reward(self, t, x, a, mu):
        own = self.project_action(a)[:, 0]
        return -np.abs(x[:, 0] - 0.3) - 0.1 * own**2 - own * mu.mean_action[0] - 0.1 * np.exp(mu.log_density(x))

    def terminal_reward(self, x, mu):
        return np.cos(3 * x[:, 0]) - 0.2 * np.exp(mu.log_density(x))


GAMES = {
    "beach": (BeachBar(horizon=12), 40, 7, None),
    "entropy": (FourRooms(horizon=8), 14, 3, None),
    "congestion": (FourRooms(crowd="congestion", horizon=8), 14, 3, None),
    "lq": (LinearQuadratic(horizon=8), 40, 9, (-2.5, 2.5)),
    "price": (PriceImpact(), 40, 9, (-2.0, 3.0)),
    "gusts": (Gusts(), 12, 3, None),
}
each_game = pytest.mark.parametrize("setting", GAMES.values(), ids=GAMES)


def random_policy(game: FiniteGame, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(game.shape[2]), size=game.shape[:2])


def one_hot(choices: np.ndarray, m: int) -> np.ndarray:
    return np.eye(m)[choices]


# --- against paths, one by one ---------------------------------------------------------------------------------------


def tiny() -> FiniteGame:
    """Three states, two actions, two steps; transitions and rewards read who plays what."""
    rng = np.random.default_rng(3)
    fixed, swayed = rng.dirichlet(np.ones(3), size=(2, 2, 6))  # (t, rows, next states) each
    bonus, pull, last = rng.normal(size=(2, 3, 2)), rng.normal(size=(3, 2, 6)), rng.normal(size=(3, 3))

    def transition(t, played):
        share = played[:, 0].sum()  # of those who play the first action
        return sparse.csr_array(share * fixed[t] + (1 - share) * swayed[t])

    return FiniteGame(
        states=np.arange(3.0)[:, None],
        actions=np.arange(2.0)[:, None],
        initial=np.array([0.5, 0.3, 0.2]),
        horizon=2,
        transition=transition,
        reward=lambda t, played: bonus[t] + pull @ played.ravel(),
        terminal_reward=lambda mass: last @ mass,
    )


def paths(game: FiniteGame, policy, crowd):
    """Every path (s_0, a_0, ..., s_T) with its probability and its return."""
    rows = [game.transition(t, played).toarray().reshape(3, 2, 3) for t, played in enumerate(crowd.played)]
    rewards = [game.reward(t, played) for t, played in enumerate(crowd.played)]
    last = game.terminal_reward(crowd.masses[-1])
    for s0, a0, s1, a1, s2 in product(range(3), range(2), range(3), range(2), range(3)):
        probability = (
            game.initial[s0] * policy[0, s0, a0] * rows[0][s0, a0, s1] * policy[1, s1, a1] * rows[1][s1, a1, s2]
        )
        yield (s0, s1, s2), probability, rewards[0][s0, a0] + rewards[1][s1, a1] + last[s2]


def test_values_and_flows_are_those_of_all_paths():
    game = tiny()
    policy, other = random_policy(game), random_policy(game, 1)
    for crowd in (game.flow(policy), game.flow(other)):
        all_paths = list(paths(game, policy, crowd))
        assert game.value(policy, crowd) == pytest.approx(sum(p * r for _, p, r in all_paths), abs=1e-14)
        masses = np.zeros((3, 3))
        for states, probability, _ in all_paths:
            masses[range(3), states] += probability
        np.testing.assert_allclose(game.flow(policy, crowd).masses, masses, atol=1e-15)
    np.testing.assert_allclose(game.flow(policy).masses, game.flow(policy, game.flow(policy)).masses, atol=1e-15)
    assert np.abs(game.flow(policy).masses - game.flow(policy, game.flow(other)).masses).max() > 1e-3


def test_best_responses_are_the_best_of_all_policies():
    game = tiny()
    crowd = game.flow(random_policy(game))
    values = [game.value(one_hot(np.reshape(choices, (2, 3)), 2), crowd) for choices in product(range(2), repeat=6)]
    policy, value = game.respond(crowd)
    assert value == pytest.approx(max(values), abs=1e-14)
    assert game.value(policy, crowd) == pytest.approx(value, abs=1e-14)
    assert sorted(values)[-2] < value - 1e-4


# --- laws ------------------------------------------------------------------------------------------------------------


@each_game
def test_laws_of_every_game(setting):
    """Mass is kept, what is played adds up, two ways to a return agree, and nothing beats a best response."""
    game = finite_game(*setting)
    policy = random_policy(game)
    crowd = game.flow(policy)
    np.testing.assert_allclose(crowd.masses.sum(axis=1), 1, atol=1e-12)
    assert crowd.masses.min() >= 0
    np.testing.assert_allclose(crowd.played.sum(axis=2), crowd.masses[:-1], atol=1e-14)
    earned = game.earned(crowd)
    assert game.value(policy, crowd) == pytest.approx(earned, abs=1e-11)
    best, value = game.respond(crowd)
    assert game.value(best, crowd) == pytest.approx(value, abs=1e-11)
    assert set(np.unique(best)) == {0.0, 1.0}
    for seed in range(1, 4):
        assert game.value(random_policy(game, seed), crowd) < value
    assert game.exploitability(policy) == pytest.approx(value - earned, abs=1e-11)


@each_game
def test_operators_are_adjoint(setting):
    game = finite_game(*setting)
    rng, (_, n, m) = np.random.default_rng(0), game.shape
    played, values = rng.dirichlet(np.ones(n * m)).reshape(n, m), rng.normal(size=n)
    transition = game.transition(1, played)
    ahead = transition @ values
    assert ahead.shape == (n * m,)
    assert played.ravel() @ ahead == pytest.approx((transition.T @ played.ravel()) @ values, abs=1e-13)
    np.testing.assert_allclose(transition @ np.ones(n), 1, atol=1e-12)


def test_a_best_response_is_an_equilibrium_where_the_crowd_does_not_matter():
    for setting in ((BeachBar(c_m=0.0), 40, 7), (FourRooms(crowd="congestion", c_c=0.0, horizon=10), 14, 3)):
        game = finite_game(*setting)
        best, _ = game.respond(game.flow(game.uniform()))
        assert abs(game.exploitability(best)) < 1e-12
        assert game.exploitability(game.uniform()) > 0.1


def test_constants_in_the_reward_shift_returns_and_nothing_else():
    plain = finite_game(BeachBar(), 40, 7)
    shifted = replace(
        plain,
        reward=lambda t, played: plain.reward(t, played) + 3.0,
        terminal_reward=lambda mass: plain.terminal_reward(mass) - 1.0,
    )
    policy = random_policy(plain)
    assert shifted.earned(shifted.flow(policy)) == pytest.approx(plain.earned(plain.flow(policy)) + 3 * 40 - 1)
    assert shifted.exploitability(policy) == pytest.approx(plain.exploitability(policy), abs=1e-11)


# --- against the grid oracle -----------------------------------------------------------------------------------------


@each_game
def test_policies_of_one_action_are_those_of_the_grid(setting):
    game, model = finite_game(*setting), Model(*setting)
    choices = np.random.default_rng(0).integers(game.shape[2], size=game.shape[:2])
    crowd = game.flow(one_hot(choices, game.shape[2]))
    flow, earned = model.flow(GridPolicy(model.mesh, game.actions[choices]))
    np.testing.assert_allclose(crowd.masses, flow.masses, atol=1e-13)
    np.testing.assert_allclose(crowd.played.sum(axis=1) @ game.actions, flow.mean_actions, atol=1e-12)
    assert game.earned(crowd) == pytest.approx(earned, abs=1e-11)


@each_game
def test_best_responses_are_those_of_the_grid_before_refinement(setting, monkeypatch):
    game, model = finite_game(*setting), Model(*setting)
    crowd = game.flow(game.uniform())
    flow = grid.Grid(model.mesh, crowd.masses, crowd.played.sum(axis=1) @ game.actions)
    best, value = game.respond(crowd)
    refined = model.respond(flow)[1]
    monkeypatch.setattr(grid, "REFINEMENT", ())
    policy, unrefined = model.respond(flow)
    assert value == pytest.approx(unrefined, abs=1e-11)
    np.testing.assert_allclose(game.actions[best.argmax(axis=2)], policy.actions, atol=1e-6)
    assert refined > value + 1e-6


def test_many_actions_find_the_exploitability_of_closed_forms():
    """REFERENCE: of doing nothing, 18.042032 in the linear-quadratic game and 2.553590 with price impact."""
    for setting, exact in (
        ((LinearQuadratic(), 60, 81, (-2.5, 2.5)), 18.042031789551764),
        ((PriceImpact(), 40, 81, (-2.0, 3.0)), 2.553590089700866),
    ):
        game = finite_game(*setting)
        idle = one_hot(np.full(game.shape[:2], 40), 81)
        np.testing.assert_array_equal(game.actions[40], 0)
        found = game.exploitability(idle)
        assert 0.99 * exact < found < exact


def test_the_mean_moves_as_dynamics_that_read_it_say():
    """m' = (A + A_bar) m + B a: splines keep means."""
    lq = LinearQuadratic(A=0.5, A_bar=0.3, B=0.2, horizon=6)
    game = finite_game(lq, 60, 5, (-8.0, 4.0))
    policy = np.zeros(game.shape)
    policy[:, :, 1:3] = 0.5  # actions -5 and 0
    means = (game.flow(policy).masses @ game.states)[:, 0]
    expected = [-1.0]
    for _ in range(6):
        expected.append(0.8 * expected[-1] + 0.2 * -2.5)
    np.testing.assert_allclose(means, expected, atol=1e-6)


# --- fictitious play -------------------------------------------------------------------------------------------------


def test_fictitious_play_finds_the_beach_bar_of_the_oracle():
    """REFERENCE on 101 cells, 21 actions: J* -2.0202 (refined actions: -2.0211)."""
    game = finite_game(BeachBar(), 101, 21)
    gaps = [game.exploitability(game.fictitious_play(k)[0]) for k in (5, 20, 80)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0
    policy, crowd = game.fictitious_play(80)
    np.testing.assert_allclose(game.flow(policy).masses, crowd.masses, atol=1e-14)
    assert game.earned(crowd) == pytest.approx(-2.0202, abs=0.003)
    oracle = grid.solve(BeachBar(), 101, 21, iterations=40)
    np.testing.assert_allclose(crowd.masses @ game.states, oracle.mean_field.means, atol=0.01)


def test_fictitious_play_averages_flows():
    game = finite_game(BeachBar(), 40, 7)
    first, crowd = game.fictitious_play(1)
    second, _ = game.respond(crowd)
    _, both = game.fictitious_play(2)
    expected = game.flow(first).played / 3 + game.flow(second).played * 2 / 3
    np.testing.assert_allclose(both.played, expected, atol=1e-14)


# --- another program's game ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.0])
def test_the_rooms_of_open_spiel(noise):
    """REFERENCE: NashConv of the uniform policy, from OpenSpiel 2.0.2."""
    game, policy = open_spiel_rooms.four_rooms(noise)
    assert game.shape == (40, 104, 5)
    assert game.exploitability(policy) == pytest.approx(open_spiel_rooms.NASH_CONV[noise], abs=1e-5)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    game = finite_game(BeachBar(), 20, 3)
    policy = game.uniform()
    for function in (game.flow, game.exploitability, lambda p: game.value(p, game.flow(policy))):
        with pytest.raises(ValueError, match="shape"):
            function(policy[:-1])
        for bad in (policy * 1.1, policy - [1.0, 0.0, -1.0], policy * np.nan):
            with pytest.raises(ValueError, match="probabilities"):
                function(bad)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="iterations"):
            game.fictitious_play(bad)
    with pytest.raises(ValueError, match="bounds"):
        finite_game(LinearQuadratic())
    with pytest.raises(ValueError, match="dimension 1 or 2"):
        finite_game(LinearQuadratic(dim=3))
    with pytest.raises(ValueError, match="actions"):
        finite_game(BeachBar(), 20, 1)
