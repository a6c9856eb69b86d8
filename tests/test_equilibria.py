"""The page of equilibria: the mean action of a mixture, rooms and moments, tables, and the script on coarse grids."""

import csv
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mfg_envs.equilibrium import grid
from mfg_envs.equilibrium.grid import Mixture, Model
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic
from mfg_envs.mean_field.grid import Mesh

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("equilibria")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


# --- the mean action of a mixture ------------------------------------------------------------------------------------


def always(velocity):
    return lambda t, x: np.full(x.shape, velocity)


def test_mean_of_two_who_part():
    """From N(0, s0^2) one group goes left, the other right: Bayes' rule for two Gaussians gives tanh."""
    game = BeachBar(m0=0.0, s0=0.1)
    model = Model(game, 200)
    mixture = Mixture([always(1.0), always(-1.0)], [0.5, 0.5])
    policy, spread = model.mean_policy(mixture, model.flow(mixture)[0])
    x = model.mesh.centres[:, 0]
    inside = np.abs(x) < 0.6  # before anybody is reflected
    for t in (0, 1, 4, 8):
        variance = game.s0**2 + t * game.sigma**2 * game.dt
        exact = np.tanh(x * t * game.dt / variance)
        np.testing.assert_allclose(policy.actions[t, inside, 0], exact[inside], atol=2e-3)
        np.testing.assert_allclose(spread[t, inside], np.sqrt(1 - exact**2)[inside], atol=5e-3)


@pytest.mark.parametrize("game", [BeachBar(horizon=10), FourRooms(horizon=10)])
def test_mean_has_the_crowds_mean_action_and_the_total_variance(game):
    model, rng = Model(game, 24), np.random.default_rng(0)
    ends = rng.uniform(-0.6, 0.6, (3, game.action_dim))
    policies = [lambda t, x, end=end: end + 0.3 * np.sin(3 * x + t) for end in ends]
    mixture = Mixture(policies, [0.2, 0.5, 0.3])
    crowd, _ = model.flow(mixture)
    policy, spread = model.mean_policy(mixture, crowd)
    mass = crowd.masses[:-1]
    np.testing.assert_allclose(np.einsum("tn,tnk->tk", mass, policy.actions), crowd.mean_actions, atol=1e-12)
    squares = np.zeros(game.horizon)
    for one, weight in zip(policies, mixture.weights, strict=True):
        flow = model.flow(one)[0].masses
        a = np.stack([game.project_action(one(t, model.mesh.centres)) for t in range(game.horizon)])
        squares += weight * np.einsum("tn,tnk->t", flow[:-1], a**2)
    in_places = np.einsum("tn,tn->t", mass, spread**2)
    np.testing.assert_allclose(np.einsum("tn,tnk->t", mass, policy.actions**2) + in_places, squares, atol=1e-12)


def test_mean_of_one_policy_is_that_policy_even_where_nobody_is():
    game = FourRooms(horizon=5)
    model = Model(game, 24)

    def swirl(t, x):
        return 0.5 * np.stack([np.cos(3 * x[:, 1]), np.sin(x[:, 0] + t)], axis=-1)

    policy, spread = model.mean_policy(Mixture([swirl], [1.0]), model.flow(swirl)[0])
    for t in range(5):
        np.testing.assert_allclose(policy.actions[t], swirl(t, model.mesh.centres), atol=1e-12)
    assert spread.max() < 1e-12


def test_mean_reads_the_crowd_where_dynamics_do():
    game = LinearQuadratic(horizon=3)
    model = Model(game, 40, bounds=(-2.5, 2.0))
    mixture = Mixture([always(0.5), always(2.0)], [0.5, 0.5])
    crowd, _ = model.flow(mixture)
    policy, _ = model.mean_policy(mixture, crowd)
    np.testing.assert_allclose(
        np.einsum("tn,tnk->tk", crowd.masses[:-1], policy.actions), crowd.mean_actions, atol=1e-12
    )


def test_components_must_not_be_random():
    model = Model(BeachBar(), 20)
    inner = Mixture([always(0.5), always(-0.5)], [0.5, 0.5])
    with pytest.raises(ValueError, match="must not be random"):
        model.mean_policy(Mixture([inner], [1.0]), model.flow(always(0.0))[0])


def test_mean_of_fictitious_play_is_less_exploitable_than_the_mixture():
    nash = grid.solve(BeachBar(), 50, iterations=20)
    model = Model(BeachBar(), 50)
    policy, _ = model.mean_policy(nash.policy, nash.mean_field)
    crowd, earned = model.flow(policy)
    assert 0 <= model.respond(crowd)[1] - earned < nash.exploitability / 3
    assert np.abs(crowd.masses - nash.mean_field.masses).sum(axis=1).max() < 0.02


# --- rooms and moments -----------------------------------------------------------------------------------------------


def test_rooms_and_doors_are_the_floor(script):
    game = FourRooms()
    mesh = Mesh(game.floor, 80)
    inside, quarters = script.rooms(game, mesh.centres), script.quarters(mesh.centres)
    np.testing.assert_array_equal(inside.sum(axis=0), 1)
    np.testing.assert_array_equal(quarters.sum(axis=0), 1)
    np.testing.assert_allclose(inside @ mesh.volume, [0.95**2] * 4 + [4 * 0.25 * 0.1], rtol=1e-12)
    np.testing.assert_allclose(quarters @ mesh.volume, game.floor.free_area / 4, rtol=1e-12)
    mass = np.random.default_rng(0).dirichlet(np.ones(len(mesh)))
    assert (inside[:4] @ mass).sum() == pytest.approx(1 - inside[4] @ mass, abs=1e-12)


def test_quarters_go_by_their_names(script):
    corners = np.array([[-0.7, -0.7], [0.7, -0.7], [-0.7, 0.7], [0.7, 0.7]])
    assert script.QUARTERS == ("start", "lower right", "upper left", "far")
    np.testing.assert_array_equal(script.quarters(corners), np.eye(4))
    np.testing.assert_array_equal(script.rooms(FourRooms(), corners)[:4], np.eye(4))
    np.testing.assert_array_equal(script.quarters(np.array([[0.0, 0.5]]))[:, 0], [0, 0, 0.5, 0.5])


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        ("", "", ""),
        ("-6.10964", "0", "-6.10964"),
        ("1e-30", "0", "0"),
        ("7.38244", "0.0138", "7.382 ± 0.014"),
        ("-12.0301", "0.03", "-12.030 ± 0.030"),
        ("18.0319", "0.00431", "18.0319 ± 0.0044"),
        ("5.6", "2.3", "5.6 ± 2.3"),
        ("-2.02107", "1e-09", "-2.021070 ± 0.000001"),
    ],
)
def test_figures_have_the_digits_that_they_deserve(script, value, error, shown):
    assert script.show(value, error) == shown


def test_a_page_is_filled_between_its_markers_alone(script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: written by benchmarks/equilibria.py -->\nold\n<!-- end of a -->\nafter\n")
    for _ in range(2):
        script.tables.fill(page, "a", "new", "equilibria.py")
        assert page.read_text() == (
            "before\n<!-- a: written by benchmarks/equilibria.py -->\n\nnew\n\n<!-- end of a -->\nafter\n"
        )
    with pytest.raises(ValueError, match=r"page\.md must have each of"):
        script.tables.fill(page, "b", "new", "equilibria.py")


def test_the_page_says_what_the_csv_says(script):
    page = (ROOT / "docs" / "equilibria.md").read_text()
    with (ROOT / "benchmarks" / "results" / "equilibria.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["game"] for row in rows)) == list(script.CASES)
    for name, case in script.CASES.items():
        ours = [row for row in rows if row["game"] == name]
        assert script.block(case, ours) in page
        assert {row["figure"] for row in ours if row["independent"]} == set(script.INDEPENDENT[name])
        assert f"../assets/equilibrium_{name}.png" in page
    for picture in re.findall(r"\]\(\.\./(assets/.*?)\)", page):
        assert (ROOT / picture).is_file()


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coarse(script, tmp_path_factory):
    """All games on coarse grids, in a temporary folder."""
    folder = tmp_path_factory.mktemp("equilibria")
    cases = {
        "lq_v0": script.CASES["lq_v0"],
        "price_impact_v0": script.CASES["price_impact_v0"],
        "beach_bar_v0": script.CASES["beach_bar_v0"]._replace(cells=40, iterations=6),
        "four_rooms_v0_entropy": script.Case(FourRooms(horizon=8), 24, 3),
        "four_rooms_v0_congestion": script.Case(FourRooms(crowd="congestion", horizon=8), 24, 3),
    }
    page = folder / "page.md"
    page.write_text(
        "".join(f"<!-- {name}: written by benchmarks/equilibria.py -->\n<!-- end of {name} -->\n" for name in cases)
    )
    places = ["--output", "table.csv", "--page", "page.md", "--pictures", "", "--solutions", "solutions"]
    arguments = [a if a.startswith("--") else str(folder / a) for a in places]

    def run(*more):
        script.main([*arguments, "--agents", "1000", *more], cases)
        with (folder / "table.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return cases, folder, run, run()


def test_figures_agree_with_play(coarse):
    """Moments of the crowd, and both exploitabilities of doing nothing, within five errors."""
    cases, _, _, rows = coarse
    assert {row["game"] for row in rows} == set(cases)
    for row in rows:
        if row["play"] and not row["figure"].startswith(("return", "exploitability: mix", "exploitability: the mix")):
            allowed = 5 * float(row["play_stderr"]) + 2 * float(row["error"]) + 1e-9
            assert float(row["value"]) == pytest.approx(float(row["play"]), abs=allowed), row


def test_independent_closed_forms_are_met(coarse):
    for row in coarse[-1]:
        if row["game"] in ("lq_v0", "price_impact_v0") and row["independent"]:
            allowed = 4 * float(row["error"]) + 2e-6 * abs(float(row["independent"]))
            assert float(row["value"]) == pytest.approx(float(row["independent"]), abs=allowed), row


def test_masses_of_the_quarters_sum_to_one(coarse):
    for name in ("four_rooms_v0_entropy", "four_rooms_v0_congestion"):
        quarters = [row for row in coarse[-1] if row["game"] == name and "quarter" in row["figure"]]
        assert len(quarters) == 4
        for column in ("value", "play"):
            assert sum(float(row[column]) for row in quarters) == pytest.approx(1, abs=1e-5)


def test_another_run_loads_solutions_and_keeps_other_games(coarse):
    cases, folder, run, rows = coarse
    text = (folder / "page.md").read_text()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("solutions/*/*.npz")}
    assert len(kept) == 6  # three games on two grids
    assert run("--games", "beach_bar_v0") == rows
    assert {path: path.stat().st_mtime_ns for path in folder.glob("solutions/*/*.npz")} == kept
    assert (folder / "page.md").read_text() == text
    for name in cases:
        picture = (folder / f"equilibrium_{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 20_000


def test_nobody_moves_at_the_last_step_unless_the_end_is_rewarded(script, coarse):
    cases, folder, *_ = coarse
    for name in ("beach_bar_v0", "four_rooms_v0_entropy"):
        case = cases[name]
        found = script.find(name, case, next(folder.glob("solutions/*")), case.cells)
        assert np.abs(found.policy.actions[-1]).max() < 1e-6
        assert np.abs(found.policy.actions[0]).max() > 0.5
        everywhere, in_places = script.spread_of_actions(found)
        assert (everywhere >= in_places).all()
        assert everywhere[-1] < 1e-6
