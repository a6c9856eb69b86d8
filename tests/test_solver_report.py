"""The tables and pictures of the solvers' page: what they show is what is in the CSVs."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("solver_report")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def rows(name):
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def made_up(solver, seed, points):
    """Judged iterations of a run: (seconds, exploitability)."""
    errors = {"errors/best_response": "0.1", "errors/flow": "0.05", "errors/flow_reward": "0.3"}
    return [
        {
            "solver": solver,
            "game": "beach_bar_v0",
            "seed": seed,
            "iteration": str(i),
            "seconds": str(seconds),
            "env_steps": str(1000 * i),
            "exploitability": str(exploitability),
            **dict.fromkeys(("errors/average_policy", "errors/average_policy_reward", "errors/leak"), ""),
            **errors,
        }
        for i, (seconds, exploitability) in enumerate(points, 1)
    ]


def test_equal_time_is_log_linear_at_the_end_of_the_fastest(script):
    judged = made_up("dedafp_ppo", "1", [(10, 1.0), (20, 0.1)])
    judged += made_up("fp_ppo", "1", [(10, 1.0), (30, 0.01)]) + made_up("fp_ppo", "2", [(10, 1.0), (30, 0.04)])
    line = script.equal_cost_table(judged, "seconds", "training, s").splitlines()[2]
    assert line == "| beach bar | 20 | 0.100 | 0.150 ± 0.071 |"
    line = script.equal_cost_table(judged, "env_steps", "steps").splitlines()[2]
    assert line == "| beach bar | 2,000 | 0.100 | 0.0250 ± 0.0212 |"


def test_errors_are_means_over_seeds_of_the_last_look(script):
    judged = made_up("dedafp_ppo", "1", [(10, 1.0), (20, 0.1)]) + made_up("dedafp_ppo", "2", [(10, 1.0), (20, 0.3)])
    for row, error in zip(judged, ("9", "0.01", "9", "0.02"), strict=True):
        row |= {"errors/flow": error, "errors/crowd": ""}
    assert script.errors_table(judged).splitlines()[2:] == [
        "| beach bar | DEDA-FP (PPO) | 0.2 | 0.1 |  |  | 1.5 % | 0.3 |  |"
    ]


def test_spread_is_of_several_seeds(script):
    assert script.spread(np.array([1.0, 3.0]), ".1f") == "2.0 ± 1.4"
    assert script.spread(np.array([1.0]), ".1f") == "1.0"
    assert script.spread(np.array([0.00123, 0.00125])) == "0.00124 ± 0.00001"


def test_pictures_of_made_up_runs(script, tmp_path):
    judged = made_up("dedafp_ppo", "1", [(10, 1.0), (20, 0.1)]) + made_up("dedafp_ppo", "2", [(11, 0.9), (22, 0.2)])
    finished = [
        {"solver": "dedafp_ppo", "game": "beach_bar_v0", "exploitability": "0.1", "share_of_doing_nothing": "0.01"}
    ]
    script.draw_exploitability(tmp_path / "a.png", finished, judged)
    script.draw_errors(tmp_path / "b.png", judged)
    assert min((tmp_path / name).stat().st_size for name in ("a.png", "b.png")) > 20_000


def test_the_page_says_what_the_csvs_say(script):
    page = (ROOT / "docs" / "solvers.md").read_text()
    assert script.results_table(rows("solvers.csv")) in page
    judged = rows("solver_iterations.csv")
    assert script.equal_cost_table(judged, "seconds", "training, s") in page
    assert script.equal_cost_table(script.of_ppo(judged), "env_steps", "steps of agents") in page
    assert script.errors_table(judged) in page
    for row in rows("solvers.csv"):
        assert script.NAMES[row["solver"]] in page
