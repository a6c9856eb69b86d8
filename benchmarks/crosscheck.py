"""The same policies, judged by us and by programs that are not ours: MFGLib and OpenSpiel.

    python benchmarks/crosscheck.py

It needs the extra `crosscheck`. Each row has a figure of ours, theirs, and the seconds that either took. Games of ours
go to MFGLib by `mfg_envs.interop`; OpenSpiel's four rooms come to us by `open_spiel_rooms.py`. Prints a Markdown table
and writes benchmarks/results/crosscheck.csv. One thread; some five minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import open_spiel_rooms
import tables

from mfg_envs import interop
from mfg_envs.equilibrium import grid
from mfg_envs.equilibrium.finite import finite_game
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic, PriceImpact
from mfg_envs.games.base import Game

RESULTS = Path(__file__).parent / "results" / "crosscheck.csv"
GAMES: dict[str, tuple[Game, int, int, Any]] = {  # and cells, actions across, bounds
    "BeachBar": (BeachBar(), 101, 21, None),
    "PriceImpact": (PriceImpact(), 40, 21, (-2.0, 3.0)),
    "LinearQuadratic": (LinearQuadratic(), 40, 21, (-2.5, 2.5)),
    "FourRooms, entropy": (FourRooms(), 31, 7, None),
    "FourRooms, congestion": (FourRooms(crowd="congestion"), 31, 7, None),
}
Row = dict[str, Any]
FORMS = {"ours": ".6f", "theirs": ".6f", "difference": ".1e", "seconds_ours": ".3f", "seconds_theirs": ".3f"}
REPEATS = 5  # of what is timed against OpenSpiel


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file to write")
    args = parser.parse_args()

    print("| with | game | what | ours | theirs | difference | seconds, ours | theirs |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    rows: list[Row] = []
    for measure in (same_policies, equilibria, mf_omo, open_spiel, speed):
        for found in measure():
            rows.append(found)
            figures = (f"{found[key]:{form}}" if found[key] != "" else "" for key, form in FORMS.items())
            print("|", " | ".join([found["with"], found["game"], found["what"], *figures]), "|", flush=True)
    exact = ({key: f"{found[key]:.9f}" for key in ("ours", "theirs") if found[key] != ""} for found in rows)
    tables.write(args.output, [{**found, **digits} for found, digits in zip(rows, exact, strict=True)])


def same_policies() -> Iterator[Row]:
    """Exploitability of the uniform and of a random policy, by us and by MFGLib."""
    for name, setting in GAMES.items():
        game, env = finite_game(*setting), interop.to_mfglib(*setting)
        from mfglib.scoring import exploitability_score  # after `to_mfglib`, which imports what must come before

        random = np.random.default_rng(0).dirichlet(np.ones(game.shape[2]), size=game.shape[:2])
        for kind, policy in (("uniform", game.uniform()), ("random", random)):
            game.exploitability(policy)  # sets up the transitions
            ours, seconds_ours = timed(game.exploitability, policy)
            with interop.float64():
                theirs, seconds = timed(exploitability_score, env, interop.to_mfglib_policy(policy))
            yield row("MFGLib", name, f"exploitability, {kind} policy", ours, theirs, seconds_ours, seconds)


def equilibria() -> Iterator[Row]:
    """The beach bar's equilibrium by MFGLib's algorithms, our fictitious play and the grid oracle: the crowd's mean."""
    setting = GAMES["BeachBar"]
    game, env = finite_game(*setting), interop.to_mfglib(*setting)
    from mfglib.alg import FictitiousPlay, OnlineMirrorDescent

    nash, seconds_oracle = timed(grid.solve, *setting[:3])
    (policy, crowd), seconds_play = timed(game.fictitious_play, 200)
    solvers = (
        ("fictitious play", game.exploitability(policy), crowd.masses, seconds_play),
        ("grid oracle", nash.exploitability, nash.mean_field.masses, seconds_oracle),
    )
    for algorithm in (FictitiousPlay(), OnlineMirrorDescent(alpha=10.0)):
        with interop.float64():
            (policies, gaps, _), seconds = timed(algorithm.solve, env, max_iter=200, atol=None, rtol=None)
        theirs = game.flow(unit(policies[-1][:-1].numpy())).masses @ game.states[:, 0]
        for solver, gap, masses, took in solvers:
            names, ours = f"{solver}, {type(algorithm).__name__}", masses @ game.states[:, 0]
            t = int(np.abs(ours - theirs).argmax())
            what = f"mean of the crowd at t = {t}, where it differs most: {names}"
            yield row("MFGLib", "BeachBar", f"exploitability reached: {names}", gap, gaps[-1], took, seconds)
            yield row("MFGLib", "BeachBar", what, ours[t], theirs[t], took, seconds)


def mf_omo() -> Iterator[Row]:
    """What MF-OMO reaches on a small beach bar, judged by us and by itself."""
    setting = (BeachBar(), 41, 11)
    game, env = finite_game(*setting), interop.to_mfglib(*setting)
    from mfglib.alg import MFOMO

    method = MFOMO(optimizer={"name": "Adam", "config": {"lr": 0.01}})
    with interop.float64():
        (policies, gaps, _), seconds = timed(method.solve, env, max_iter=100, atol=None, rtol=None)
    best = int(np.argmin(gaps))
    ours, seconds_ours = timed(game.exploitability, unit(policies[best][:-1].numpy()))
    what = f"exploitability of the best policy in 100 iterations of MFOMO, which starts at {gaps[0]:.3f}"
    yield row("MFGLib", "BeachBar, 41 cells, 11 actions", what, ours, gaps[best], seconds_ours, seconds)


def open_spiel() -> Iterator[Row]:
    """OpenSpiel's four rooms, written for our finite games, by NashConv of the uniform policy."""
    for noise in open_spiel_rooms.NASH_CONV:
        game, policy = open_spiel_rooms.four_rooms(noise)
        ours, seconds_ours = timed(game.exploitability, policy)
        theirs, seconds = timed(nash_conv(noise))
        name = f"its four rooms, noise {noise:g}"
        yield row("OpenSpiel", name, "NashConv, uniform policy", ours, theirs, seconds_ours, seconds)


def speed() -> Iterator[Row]:
    """Seconds of one exploitability: of our four rooms with 49 actions, and of OpenSpiel's, 104 cells and 5 actions."""
    for name in ("FourRooms, entropy", "FourRooms, congestion"):
        game, setting_up = timed(finite_game, *GAMES[name])
        policy, judge = game.uniform(), nash_conv(1.0)
        _, first = timed(game.exploitability, policy)
        in_turn = [(timed(game.exploitability, policy)[1], timed(judge)[1]) for _ in range(REPEATS)]
        ours, theirs = (statistics.median(seconds) for seconds in zip(*in_turn, strict=True))
        size = f"{name}, {game.shape[1]} states, {game.shape[2]} actions"
        for what, seconds in (("one evaluation", ours), ("the first, with all that is set up", setting_up + first)):
            timing = f"{what}; OpenSpiel's rooms take {theirs / seconds:.2f} times as long"
            yield row("OpenSpiel", size, timing, "", "", seconds, theirs)


def nash_conv(noise: float) -> Callable[[], float]:
    """OpenSpiel's NashConv of the uniform policy in its four rooms."""
    import pyspiel
    from open_spiel.python.mfg.algorithms.nash_conv import NashConv
    from open_spiel.python.mfg.games.factory import GAME_SETTINGS
    from open_spiel.python.policy import UniformRandomPolicy

    setting = {**GAME_SETTINGS["crowd_modelling_2d_four_rooms"], "noise_intensity": noise}
    game = pyspiel.load_game("mfg_crowd_modelling_2d", setting)
    return lambda: NashConv(game, UniformRandomPolicy(game)).nash_conv()


def unit(policy: np.ndarray) -> np.ndarray:
    """Probabilities that sum to one, of ones that do up to the other program's rounding."""
    return policy / policy.sum(axis=2, keepdims=True)


def timed(work: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """What `work` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work(*args, **kwargs)
    return result, time.perf_counter() - start


def row(*values: Any) -> Row:
    """A row of the table."""
    other, game, what, ours, theirs, seconds_ours, seconds_theirs = values
    difference = "" if ours == "" else abs(float(ours) - float(theirs))
    return {
        "with": other,
        "game": game,
        "what": what,
        "ours": ours if ours == "" else float(ours),
        "theirs": theirs if theirs == "" else float(theirs),
        "difference": difference,
        "seconds_ours": seconds_ours,
        "seconds_theirs": seconds_theirs,
    }


if __name__ == "__main__":
    main()
