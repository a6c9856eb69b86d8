"""The viewer: what must be true of the pixels, of the play, of every key, and of what goes wrong."""

import copy
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ["SDL_VIDEODRIVER"] = "dummy"

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe
from pettingzoo.utils.wrappers import RecordVideoParallel

from mfg_envs.all_modules import all_modules
from mfg_envs.envs import CrowdParallelEnv, simulate
from mfg_envs.equilibrium import Mixture, exploitability, save_equilibrium, solve
from mfg_envs.games import BeachBar, FourRooms, LinearQuadratic, PriceImpact
from mfg_envs.mean_field import Empirical, Flow
from mfg_envs.policies import AveragePolicy
from mfg_envs.viewer import cli, palette, sprites
from mfg_envs.viewer.film import film, picture
from mfg_envs.viewer.layout import SIDE, Layout, ticks
from mfg_envs.viewer.painter import Painter
from mfg_envs.viewer.players import Nothing, Player, Uniform, exact, line_up, make_game, title
from mfg_envs.viewer.pygame_ce import pygame
from mfg_envs.viewer.scene import Motion, Scene, common_scale
from mfg_envs.viewer.session import Session, nash_means, sessions, steer
from mfg_envs.viewer.stage import FINER, columns_between, stage_of
from mfg_envs.viewer.window import KEYS, NUMBERS, Window

with warnings.catch_warnings():  # PettingZoo's own tests import its deprecated modules
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import render_test

ROOMS, BEACH, LINE, PRICES = FourRooms(), BeachBar(), LinearQuadratic(), PriceImpact()
GAMES = [ROOMS, FourRooms(crowd="congestion"), BEACH, LINE, PRICES, LinearQuadratic(dim=2), LinearQuadratic(dim=3)]
each_game = pytest.mark.parametrize("game", GAMES, ids=lambda game: f"{type(game).__name__}-{game.dim}")


def constant(*a):
    return lambda t, x: np.tile(np.array(a, dtype=float), (len(x), 1))


def random_player(game):
    return Player("random", Uniform(game))


def free_points(n, seed=0, floor=ROOMS.floor):
    x = np.random.default_rng(seed).uniform(-1, 1, (4 * n, 2))
    return x[floor.contains(x)][:n]


def scene_of(game, x, tint=palette.LEVELS, **changes):
    defaults = {"title": "", "facts": "", "time": 0.0, "agents": x, "tints": np.full(len(x), tint)}
    return Scene(stage=stage_of(game, x), **(defaults | changes))


def painted(scene, layout=None):
    """Pixels (height, width, 3) as integers, and the axes."""
    painter = Painter(layout or Layout(720, 720))
    painter.paint([scene])
    return painter.pixels().astype(int), painter.layout.axes([scene.stage])[0]


def brightness(pixels):
    return pixels @ [0.2126, 0.7152, 0.0722]


# --- the palette ---------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes (2009), severity 1: what protanopes, deuteranopes and tritanopes see, in linear light.
BLIND = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(colours, seen_by):
    """CIE L*a*b* of sRGB colours (n, 3) as somebody sees them."""
    srgb = np.asarray(colours) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ BLIND[seen_by].T
    xyz = (
        np.clip(linear, 0, 1)
        @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    )
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 0.008856))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("seen_by", BLIND)
def test_the_colour_blind_can_read_the_palette(seen_by):
    directions = lab([palette.EAST, palette.NORTH, palette.WEST, palette.SOUTH], seen_by)
    apart = np.linalg.norm(directions[:, None] - directions[None], axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 25  # 2 is just noticeable
    for colours in (palette.DENSITY[::8], palette.AMOUNTS):
        assert np.all(np.diff(lab(colours, seen_by)[:, 0]) > 0)  # from dark to bright, for everybody
    text = lab([palette.TEXT, palette.MUTED, palette.BACKGROUND, palette.BOX], seen_by)[:, 0]
    assert text[:2].min() - text[2:].max() > 40


def test_tints():
    assert palette.heading_tints(np.array([[1.0, 0], [0, 2], [-1, 0], [0, -1], [0, 0]]), 0.0).tolist() == [
        0,
        8,
        16,
        24,
        32,
    ]
    assert palette.heading_tints(np.array([[0.5], [-0.5], [0.0]]), 1e-9).tolist() == [0, 16, 32]
    tints = palette.amount_tints(np.array([-9.0, 0.0, 0.5, 1.0, 9.0]), 0.0, 1.0)
    assert tints.tolist() == [33, 33, 49, 64, 64]
    assert len(palette.AGENTS) == 65
    levels = palette.density_levels(np.array([0.0, 0.1, 1.0, 10.0, 1e9]), 1.0)
    assert levels[0] == 0
    assert np.all(np.diff(levels.astype(int)) > 0)
    assert levels[2] == 128


# --- layout --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(100, 900), st.integers(100, 900), st.integers(1, 3), st.integers(1, 4), st.sampled_from([ROOMS, BEACH])
)
def test_panels_fit_into_the_frame(width, height, rows, columns, game):
    layout = Layout.around(width, height, rows, columns)
    assert layout.width % 16 == layout.height % 16 == 0
    panels = layout.panels
    assert len(panels) == rows * columns
    for i, (x, y, w, h) in enumerate(panels):
        assert w >= width - 1
        assert h >= height - 1
        assert 0 <= x < x + w <= layout.width
        assert 0 <= y < y + h <= layout.height
        for a, b, c, d in panels[:i]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
    stage = stage_of(game, np.empty((0, game.dim)))
    for axes in layout.axes([stage] * len(panels)):
        state = np.linspace(game.state_low, game.state_high, 7)[1:-1]
        back = [axes.state(tuple(pixel)) for pixel in axes.pixels(state, 3.0)]
        np.testing.assert_allclose(back, state, atol=1e-9)
        if game.dim == 1:
            assert axes.time(tuple(axes.pixels(state, 3.0)[0])) == pytest.approx(3.0)
        else:  # a map keeps its proportions
            assert abs(axes.rect[2] - axes.rect[3]) <= 1


def test_one_panel_makes_a_frame_of_720():
    layout = Layout.around(SIDE, SIDE)
    assert (layout.width, layout.height, layout.unit) == (720, 720, 1.0)
    assert layout.panels[0][2:] == (SIDE, SIDE)


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_in_range(low, extent, count):
    high = low + max(extent, abs(low) * 1e-6)
    values = ticks(low, high, count)
    margin = 1e-6 * (high - low)
    assert all(low - margin <= value <= high + margin for value in values)
    assert 1 <= len(values) <= 3 * count
    if len(values) > 1:
        step = np.diff(values)[0]
        assert re.match(r"^[125]\.?0*e", f"{step:.3e}"), step


# --- stage ---------------------------------------------------------------------------------------------------------


def test_the_density_on_the_stage_is_the_crowds():
    x = np.concatenate([free_points(3000) * [0.4, 0.4] - [0.55, 0.55], free_points(1000) * [0.4, 0.4] + [0.55, 0.55]])
    stage = stage_of(ROOMS, x)
    density = stage.density(Empirical(x, floor=ROOMS.floor))
    cells = stage.raster.reshape(80, 80, 2)
    free = ROOMS.floor.contains(stage.raster).reshape(80, 80)
    area = (2 / 80) ** 2
    assert density[free].sum() * area == pytest.approx(1, abs=0.01)
    southwest, northeast = (cells < 0).all(axis=-1) & free, (cells > 0).all(axis=-1) & free
    assert density[southwest].sum() * area == pytest.approx(0.75, abs=0.02)
    assert density[northeast].sum() * area == pytest.approx(0.25, abs=0.02)
    # Walls have the density of the floor beside them, so that no dark spills from them when the picture is scaled up.
    assert np.isin(density[~free], density[free]).all()
    assert density[~free].max() > 0


def test_more_than_two_dimensions_show_the_first_two():
    game = LinearQuadratic(dim=3)
    x = np.random.default_rng(0).normal([0, 1, 9], [1, 1, 0.01], (4000, 3))
    stage = stage_of(game, x)
    assert stage.dim == 2
    places, h = np.array([[0.0, 1.0], [2.0, 1.0]]), Empirical(x[:, :2]).density.bandwidth
    kernels = np.exp(-0.5 * ((x[:, None, :2] - places) ** 2).sum(axis=-1) / h**2) / (2 * np.pi * h**2)
    np.testing.assert_allclose(stage.density_at(Empirical(x), places), kernels.mean(axis=0), rtol=0.02)
    nash = solve(game)
    there = stage.density_at(nash.mean_field.at(0), np.array([[-1.0, -1.0]]))
    assert 0.8 < there[0] * 2 * np.pi * 0.09 < 1  # by a kernel estimate from samples


def test_a_crowd_in_one_point_has_no_density_to_draw():
    game = LinearQuadratic(sigma=0.0, s0=0.0)
    session = Session(game, Player("nothing", Nothing(game)), 100)
    assert np.all(session.raster(0) == 0)
    painted(session.scene())


def test_a_stage_grows_where_there_is_no_floor():
    x = np.random.default_rng(0).normal(size=(500, 1))
    stage = stage_of(LINE, x)
    assert stage.holds(x)
    assert stage.grown(x) is stage
    grown = stage.grown(x + 20)
    assert grown.holds(x + 20)
    assert grown.holds(x)
    beach = stage_of(BEACH, np.empty((0, 1)))
    assert beach.grown(x + 20) is beach


@settings(max_examples=50, deadline=None)
@given(st.floats(48, 62), st.floats(48, 62), st.floats(4, 11), st.floats(4, 11))
def test_mass_moves_straight_from_one_time_to_the_next(m0, m1, s0, s1):
    """Between normal laws, displacement interpolation is normal, with means and deviations linear in time."""
    cells = np.arange(110) + 0.5
    before, after = (np.exp(-0.5 * ((cells - m) / s) ** 2) / s for m, s in ((m0, s0), (m1, s1)))
    between = columns_between(before, after)
    assert between.shape == (FINER, 110)
    np.testing.assert_array_equal(between[-1], after)
    for share, column in zip(np.arange(1, FINER) / FINER, between[:-1], strict=True):
        m, s = (1 - share) * m0 + share * m1, (1 - share) * s0 + share * s1
        wanted = np.exp(-0.5 * ((cells - m) / s) ** 2) / s
        np.testing.assert_allclose(column, wanted, atol=0.03 * wanted.max())
    assert np.array_equal(columns_between(0 * before, after), np.tile(after, (FINER, 1)))


# --- sprites -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(10, 50), st.floats(10, 50), st.floats(2, 6))
def test_a_disc_is_where_it_should_be(x, y, radius):
    """Its centre of mass, to a quarter of a pixel, which is what the sprites resolve; and its area."""
    radius = round(radius, 1)
    frame = pygame.Surface((64, 64))
    sprites.draw(frame, np.array([[x, y]]), np.array([8]), radius)
    light = pygame.surfarray.array3d(frame).astype(float).sum(axis=2)  # (x, y)
    centres = np.arange(64) + 0.5
    where = np.array([light.sum(axis=1) @ centres, light.sum(axis=0) @ centres]) / light.sum()
    np.testing.assert_allclose(where, [x, y], atol=0.3)
    full = pygame.Color(*palette.AGENTS[8].tolist())
    assert light.sum() / (full.r + full.g + full.b) == pytest.approx(np.pi * radius**2, rel=0.15)


# --- pictures ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 8, 16, 24, 32, 33, 64]))
def test_an_agent_is_drawn_where_it_stands(seed, tint):
    x = free_points(1, seed) * 0.97
    x = x if ROOMS.floor.contains(x)[0] else np.array([[0.5, 0.5]])
    pixels, axes = painted(scene_of(ROOMS, x, tint))
    empty, _ = painted(scene_of(ROOMS, x, tint, agents=np.full((1, 2), 9.0)))
    at = axes.pixels(x)[0]
    changed = np.argwhere((pixels != empty).any(axis=-1))  # rows, columns
    assert np.abs(changed + 0.5 - at[::-1]).max() < 9
    walls = (pixels == palette.WALL).all(axis=-1)[tuple(at.astype(int)[::-1])]
    if not walls:
        assert np.abs(pixels[tuple(at.astype(int)[::-1])] - palette.AGENTS[tint]).max() <= 3


@pytest.mark.parametrize("game", [ROOMS, FourRooms(dt=1.0)], ids=["short steps", "steps around corners"])
def test_nobody_is_drawn_inside_a_wall(game):
    """Not even those who stand at its face: walls are all of one colour, at rest and halfway through a step."""
    x = np.concatenate([free_points(9000), free_points(9000, 1) * [0.06, 1], free_points(9000, 2) * [1, 0.06]])
    x = x[ROOMS.floor.contains(x)]
    session = Session(game, random_player(game), len(x))
    session.crowd.reset(np.random.default_rng(0), x)
    session._path = (session.crowd.x,)
    for phase in (1.0, 0.5, 0.1):
        session.step()
        scene = session.scene(phase)
        assert ROOMS.floor.contains(scene.agents).all()
        pixels, axes = painted(scene)
        for low, high in ROOMS.floor.walls:
            (left, bottom), (right, top) = axes.pixels(np.array([low, high])).round().astype(int)
            assert np.all(pixels[top:bottom, left:right] == palette.WALL)
            assert right - left > 20
        assert np.any(np.abs(pixels - palette.STILL).max(axis=-1) == 0)  # and the floor is full of them


def test_the_heatmap_is_brighter_where_the_crowd_is():
    x = np.concatenate([free_points(1500) * 0.4 - 0.5, free_points(300) * 0.4 + 0.5])
    crowd, nobody = Empirical(x, floor=ROOMS.floor), {"agents": np.full((1, 2), 9.0), "tints": np.zeros(1, int)}
    stage = stage_of(ROOMS, x)
    off, axes = painted(scene_of(ROOMS, x, **nobody))
    on, _ = painted(scene_of(ROOMS, x, density=stage.density(crowd), **nobody))

    def at(picture, *place):
        column, row = axes.pixels(np.array([place]))[0].astype(int)
        return picture[row - 5 : row + 5, column - 5 : column + 5].reshape(-1, 3).mean(axis=0)

    many, some, none = (brightness(at(on, *place)) for place in ((-0.53, -0.47), (0.47, 0.53), (-0.53, 0.73)))
    assert many > some + 15 > none + 30
    for place in ((-0.53, -0.47), (0.47, 0.53), (-0.53, 0.73)):  # the colour is that of the density there
        p = stage.density_at(crowd, np.array([place]))
        wanted = palette.DENSITY[palette.density_levels(p, stage.half)[0]]
        assert np.abs(at(on, *place) - wanted).max() < 8
        assert np.abs(at(off, *place) - palette.EMPTY).max() == 0


def test_a_space_time_picture_grows_from_left_to_right():
    session = sessions(LINE, [Player("nothing", Nothing(LINE))], 300)[0]
    filled = []
    for t in (0, 5, 10, 20):
        while session.t < t:
            session.step()
        pixels, axes = painted(session.scene())
        x, y, w, h = axes.rect
        panel = pixels[y : y + h, x : x + w]
        bright = (brightness(panel) > 60) & (panel[..., 1] > panel[..., 0])
        now = axes.pixels(np.zeros((1, 1)), float(t))[0, 0] - x
        filled.append(bright[:, : int(max(now - 30, 0))].any(axis=0).mean() if t else 0)
        late = panel[:, int(now) + 40 :]
        crowd_row = axes.pixels(np.array([[-1.0]]))[0, 1]
        below = late[int(crowd_row - y) + 3 :]
        assert np.all(brightness(below) < 60)  # nothing is known of the future but the dashes of the equilibrium, above
    assert filled[0] == 0
    assert min(filled[1:]) > 0.95


def test_agents_and_lines_of_a_space_time_picture():
    x = np.array([[0.3]])
    scene = scene_of(BEACH, x, tint=0, time=17.0, nash=np.linspace(-0.5, 0.5, 41), mean=np.full(18, -0.8))
    pixels, axes = painted(scene)
    column, row = axes.pixels(x, 17.0)[0].astype(int)
    assert np.abs(pixels[row, column] - palette.EAST).max() <= 3
    pink = np.abs(pixels - palette.NASH).max(axis=-1) < 60
    for t in range(1, 40):
        at = axes.pixels(np.array([[-0.5 + t / 40]]), t)[0].astype(int)
        assert pink[at[1] - 12 : at[1] + 12, at[0] - 12 : at[0] + 12].any(), t
    mean = axes.pixels(np.full((18, 1), -0.8), np.arange(18))
    for at in mean[1:-1].astype(int):
        assert np.abs(pixels[at[1] - 2 : at[1] + 3, at[0]] - palette.TEXT).max(axis=-1).min() < 60


def test_the_crowd_at_one_state_is_spread_sideways_but_never_upwards():
    x = np.concatenate([np.full((400, 1), 0.2), [[0.8]]])
    pixels, axes = painted(scene_of(BEACH, x, tint=0, time=20.0))
    orange = np.argwhere(np.abs(pixels - palette.EAST).max(axis=-1) < 20)
    left, top, w, h = axes.rect
    orange = orange[(orange[:, 1] < left + w) & (orange[:, 0] < top + h)]
    rows = axes.pixels(np.array([[0.2], [0.8]]), 20.0)
    crowd = orange[np.abs(orange[:, 0] - rows[0, 1]) < 9]
    alone = orange[np.abs(orange[:, 0] - rows[1, 1]) < 9]
    assert len(crowd) + len(alone) == len(orange)
    assert np.ptp(crowd[:, 1]) > 40
    assert np.ptp(alone[:, 1]) < 16


def test_trails_and_the_agent_in_hand_are_drawn():
    session = Session(ROOMS, Player("right", constant(1.0, 0.0)), 100, seed=1)
    for _ in range(5):
        session.step()
    with_, _ = painted(session.scene(trails=True))
    without, _ = painted(session.scene())
    assert (with_ != without).any(axis=-1).sum() > 100
    session.grab(session.crowd.x[3])
    session.pull(np.array([0.5, 0.5]))
    held, axes = painted(session.scene())
    at = axes.pixels(session.crowd.x[session.hand.row][None])[0].astype(int)
    ring = held[at[1] - 12 : at[1] + 13, at[0] - 12 : at[0] + 13]
    assert (np.abs(ring - palette.TEXT).max(axis=-1) < 20).sum() > 60
    to = axes.pixels(np.array([[0.5, 0.5]]))[0].astype(int)
    assert np.abs(held[to[1], to[0]] - palette.TEXT).max() < 20


def test_those_who_run_away_do_not_stop_the_picture():
    game = LinearQuadratic(A=3.0, horizon=40)
    session = Session(game, random_player(game), 100, stage=stage_of(game, np.zeros((5, 1))))
    while session.step():
        pass
    assert np.abs(session.crowd.x).max() > 1e12
    painted(session.scene(trails=True))


def test_colours_of_speed_and_reward():
    session = Session(ROOMS, Player("mixed", Mixture([constant(0.0, 0.0), constant(0.6, 0.8)], [0.5, 0.5])), 200)
    session.step()
    speeds = session.motion.amounts("speed")
    assert set(np.round(speeds, 6)) <= {0.0, 0.05} or np.all(speeds <= 0.05 + 1e-12)
    scale = common_scale([session.motion], "speed")
    tints = session.scene(quantity="speed", scale=scale).tints
    assert tints[speeds.argmax()] > tints[speeds.argmin()]
    assert common_scale([session.motion], "heading") is None
    rewards = session.motion.amounts("reward")
    scene = session.scene(quantity="reward", scale=common_scale([session.motion], "reward"))
    assert np.all(np.diff(scene.tints[np.argsort(rewards)]) >= 0)
    np.testing.assert_array_equal(rewards, session.returns)
    painted(scene)


def test_drift_is_the_step_without_noise():
    """So that headings show what agents are up to; in the open it is v dt."""
    session = Session(ROOMS, Player("up", constant(0.0, 0.7)), 300)
    assert np.all(Motion.of(session.crowd).drift == 0)
    before = session.crowd.x
    session.step()
    open_ = before[:, 1] < -0.15
    np.testing.assert_allclose(session.motion.drift[open_], np.tile([0, 0.035], (open_.sum(), 1)), atol=1e-12)
    assert np.all(session.scene().tints[open_] == 8)  # north


# --- the play ------------------------------------------------------------------------------------------------------


@each_game
def test_a_session_plays_what_simulate_plays(game):
    player = random_player(game)
    session = Session(game, player, 50, seed=3)
    played = simulate(game, Uniform(game), num_agents=50, seed=3)
    while session.step():
        np.testing.assert_array_equal(session.crowd.x, played.states[session.t])
    assert session.done
    np.testing.assert_allclose(session.returns, played.returns, atol=1e-12)
    assert session.mean_return == pytest.approx(played.returns.mean())
    session.reset()
    assert session.t == 0
    np.testing.assert_array_equal(session.crowd.x, played.states[0])
    session.reset(seed=4)
    assert not np.array_equal(session.crowd.x, played.states[0])


def test_steps_back_are_exact_whatever_happened_in_between():
    policy = Mixture([Uniform(ROOMS), constant(1.0, 0.0), Nothing(ROOMS)], [0.4, 0.3, 0.3])
    session = Session(ROOMS, Player("mixture", policy), 150, seed=5)
    seen = [session.crowd.x]
    for _ in range(6):
        session.step()
        seen.append(session.crowd.x)
    for t in (5, 4, 3):
        assert session.back()
        assert session.t == t
        np.testing.assert_array_equal(session.crowd.x, seen[t])
        np.testing.assert_array_equal(session.raster(t), session.stage.density(Empirical(seen[t], floor=ROOMS.floor)))
    session.resize(300)
    session.drop(np.array([0.5, 0.5]))
    session.grab(np.array([0.5, 0.5]))
    session.pull(np.array([0.9, 0.9]))
    session.step()
    session.step()
    session.back()
    assert session.crowd.num_agents == 320
    session.back()  # to t = 3 as it was left, with those who were dropped
    assert session.crowd.num_agents == 320
    session.back()
    assert session.crowd.num_agents == 150
    assert session.hand is None
    assert session.target is None
    for t in (3, 4, 5, 6):
        session.step()
        np.testing.assert_array_equal(session.crowd.x, seen[t])
    while session.back():
        pass
    assert session.t == 0
    np.testing.assert_array_equal(session.returns, np.zeros(150))


def test_mixtures_keep_their_components():
    mixture = Mixture(
        [constant(1.0), constant(2.0), Mixture([constant(3.0), constant(4.0)], [0.5, 0.5])], [0.2, 0.3, 0.5]
    )
    with pytest.raises(ValueError, match="reset"):
        mixture.select(np.arange(3))
    mixture.reset(1000, np.random.default_rng(0))
    x = np.zeros((1000, 1))
    first = mixture(0, x)[:, 0]
    assert set(first) == {1.0, 2.0, 3.0, 4.0}
    rows = np.random.default_rng(1).integers(1000, size=700)
    mixture.select(rows)
    np.testing.assert_array_equal(mixture(1, x[:700])[:, 0], first[rows])
    mixture.select(np.arange(5))
    np.testing.assert_array_equal(mixture(2, x[:5])[:, 0], first[rows[:5]])


def test_the_number_of_agents_changes_but_not_their_law():
    session = Session(BEACH, random_player(BEACH), 2000, seed=1)
    for _ in range(10):
        session.step()
    x, returns = session.crowd.x, session.returns
    session.resize(10_000)
    assert session.crowd.num_agents == len(session.returns) == 10_000
    np.testing.assert_array_equal(session.crowd.x[:2000], x)
    assert set(session.crowd.x[:, 0]) == set(x[:, 0])  # who joins has the past of another
    assert session.mean_return == pytest.approx(returns.mean(), abs=4 * returns.std() / 2000**0.5)
    session.step()
    assert len(np.unique(session.crowd.x)) > 9_900  # and a future of its own
    session.resize(10**6)
    assert session.crowd.num_agents == 10_000
    session.resize(1)
    assert session.crowd.num_agents == 100
    assert session.t == 11
    np.testing.assert_array_equal(session.returns.shape, (100,))


@each_game
def test_a_handful_drops_where_it_is_asked_to(game):
    session = Session(game, random_player(game), 120, seed=2)
    session.step()
    mean, rows = session.mean_return, session.crowd.num_agents
    place = np.full(session.stage.dim, 0.5)
    assert session.drop(place) == 20
    x = session.crowd.x[rows:, : session.stage.dim]
    width = session.stage.high[0] - session.stage.low[0]
    assert np.abs(x - place).max() < 0.08 * width
    assert game.contains(session.crowd.x).all()
    assert session.mean_return == mean  # they have no return of a whole game
    painted(session.scene(0.5, trails=True))
    session.step()
    assert session.mean_return == pytest.approx(session.returns[:rows].mean())
    assert np.isnan(session.returns[rows:]).all()
    session.step()
    painted(session.scene(trails=True))


def test_nobody_drops_into_a_wall_or_into_a_full_house():
    session = Session(ROOMS, random_player(ROOMS), 100)
    for wall in ([0.0, 0.0], [0.02, 0.9], [1.5, 0.0]):
        assert session.drop(np.array(wall)) == 0
    assert session.crowd.num_agents == 100
    session.drop(np.array([0.06, 0.06]))  # beside a wall: all on the floor
    assert ROOMS.floor.contains(session.crowd.x).all()
    session.resize(10_000)
    assert session.drop(np.array([0.5, 0.5])) == 0


@each_game
def test_the_agent_in_hand_goes_where_it_is_pulled_by_the_rules(game):
    quiet = type(game)(**(game.constants | {"sigma": 0.0}))
    session = Session(quiet, Player("nothing", Nothing(quiet)), 100, seed=1)
    session.grab(session.crowd.x[7, : session.stage.dim])
    row = session.hand.row
    assert row == 7
    dim = session.stage.dim
    target = session.crowd.x[row, :dim] + 0.12
    session.pull(target)
    free = np.linalg.norm(session.crowd.x[row, :dim] - target)
    for _ in range(5):
        session.step()
    assert np.linalg.norm(session.crowd.x[row, :dim] - target) < 0.35 * free
    assert np.all(np.abs(session._actions[0][row]) <= game.action_high + 1e-12)
    own, others = session.hand.own, session.hand.others
    assert own == pytest.approx(session.returns[row])
    assert others == pytest.approx(np.delete(session.returns, row).mean())
    assert session.scene().chosen == row
    assert f"you {own:.2f}" in session.scene().note
    session.pull(None)  # it plays the policy again
    session.step()
    np.testing.assert_array_equal(session._actions[-1][row], Nothing(game)(0, np.zeros((1, 1)))[0])


def test_steering_hits_what_can_be_reached():
    mu = Empirical(np.zeros((5, 1)))
    x, target = np.array([0.3]), np.array([1.1])
    a = steer(LINE, 0, x, target, mu)
    np.testing.assert_allclose(LINE.step(0, x[None], a[None], mu, np.zeros((1, 1)))[0], target, atol=1e-9)
    far = steer(LINE, 0, x, np.array([100.0]), mu)
    np.testing.assert_array_equal(far, [10.0])
    v = steer(ROOMS, 0, np.array([0.5, 0.5]), np.array([0.9, 0.9]), Empirical(np.full((5, 2), 0.5), floor=ROOMS.floor))
    np.testing.assert_allclose(v, np.full(2, 0.5**0.5), atol=1e-6)


def test_switching_to_the_loaded_mean_field():
    nash = exact(LINE)
    session = Session(LINE, nash, 400, seed=6)
    own = session.raster(0)
    assert session.switch_crowd()
    assert session.crowd.mean_field is nash.equilibrium.mean_field
    loaded = session.raster(0)
    assert not np.array_equal(own, loaded)
    density = np.exp(nash.equilibrium.mean_field.at(0).log_density(session.stage.raster))
    np.testing.assert_allclose(loaded, density)
    while session.step():
        pass
    played = simulate(LINE, nash.policy, nash.equilibrium.mean_field, num_agents=400, seed=6)
    np.testing.assert_allclose(session.returns, played.returns, atol=1e-12)
    assert session.switch_crowd()
    assert session.crowd.mean_field is None
    assert not Session(LINE, random_player(LINE), 100).switch_crowd()


@each_game
def test_what_is_at_the_pointer(game):
    session = Session(game, random_player(game), 200, seed=1)
    for _ in range(3):
        session.step()
    place = session.crowd.x[0, : session.stage.dim]
    density, reward = session.probe(place, 3)
    assert density == pytest.approx(float(session.stage.density_at(session.at(3), place[None])[0]))
    assert density > 0
    assert session.probe(place, 4) == (None, None)  # the future of their own crowd is not known
    assert session.probe(place, -1) == (None, None)
    if game.dim == 3 or game is PRICES:  # the mean action is not known before they act
        assert reward is None
    else:
        idle = np.zeros((1, game.action_dim))
        assert reward == pytest.approx(float(game.reward(3, place[None], idle, session.at(3))[0]))
    if game is PRICES:
        assert session.probe(place, 2)[1] is not None
    if game is ROOMS:
        assert session.probe(np.zeros(2), 3) == (None, None)  # in a wall
        while session.step():
            pass
        assert session.probe(place, game.horizon)[1] == 0.0  # no terminal reward


def test_the_equilibriums_mean_where_it_is_known():
    np.testing.assert_allclose(
        nash_means(LINE)[[1, 5, 10, 20]], [-0.33333336, 0.73662516, 0.96531239, 0.99864672], atol=1e-7
    )
    assert nash_means(BEACH) is None
    equilibrium = solve(BeachBar(horizon=3), iterations=3)
    means = nash_means(BeachBar(horizon=3), [Player("grid", equilibrium.policy, equilibrium)])
    np.testing.assert_allclose(means, equilibrium.mean_field.means[:, 0])


# --- render() ------------------------------------------------------------------------------------------------------


def actions_of(env, rng):
    low, high = env.game.action_low, env.game.action_high
    return dict(zip(env.agents, rng.uniform(low, high, (len(env.agents), len(low))), strict=True))


@pytest.mark.parametrize("name", all_modules)
def test_pettingzoo_render_test(name):
    def make(**kwargs):
        return all_modules[name].raw_env(num_agents=5, **kwargs)

    render_test(make)


@each_game
def test_pictures_of_environments(game):
    env, rng = CrowdParallelEnv(game, 60, render_mode="rgb_array"), np.random.default_rng(0)
    assert env.metadata["render_modes"] == ["human", "rgb_array"]
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=1)
    first = env.render()
    assert first.shape == (720, 720, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(env.render(), first)
    while env.agents:
        env.step(actions_of(env, rng))
        last = env.render()
        assert (last != first).any(axis=-1).sum() > 200
    last[:] = 0  # the caller's own copy
    env.reset(seed=2)
    again = env.render()
    if game.floor is not None:  # other stages have grown; of an earlier episode nothing else is left
        fresh = CrowdParallelEnv(game, 60, render_mode="rgb_array")
        fresh.reset(seed=2)
        np.testing.assert_array_equal(again, fresh.render())
    env.close()
    assert not pygame.display.get_init()


def test_pictures_show_a_frozen_crowd():
    nash = solve(LINE)
    env = CrowdParallelEnv(LINE, 30, nash.mean_field, render_mode="rgb_array")
    env.reset(seed=0)
    frozen = env.render()
    other = CrowdParallelEnv(LINE, 30, render_mode="rgb_array")
    other.reset(seed=0)
    assert (frozen != other.render()).any()


def test_pictures_of_vector_environments():
    env = all_modules["beach_bar_v0"].vector_env(num_envs=40, render_mode="rgb_array")
    env.reset(seed=0)
    (picture_,) = env.render()
    assert picture_.shape == (720, 720, 3)
    env.step(env.action_space.sample())
    assert (env.render()[0] != picture_).any()
    env.close()
    human = all_modules["lq_v0"].vector_env(num_envs=40, render_mode="human")
    human.reset(seed=0)
    assert pygame.display.get_surface() is not None
    assert human.render() is None
    human.close()
    assert not pygame.display.get_init()


def test_a_window_follows_and_can_be_closed_by_its_user():
    env = all_modules["four_rooms_v0"].parallel_env(num_agents=20, render_mode="human")
    env.reset(seed=0)
    screen = pygame.display.get_surface()
    assert screen.get_size() == (720, 720)
    before = pygame.surfarray.array3d(screen)
    env.step(actions_of(env, np.random.default_rng(0)))
    assert (pygame.surfarray.array3d(screen) != before).any()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    env.step(actions_of(env, np.random.default_rng(0)))
    assert not pygame.display.get_init()
    env.step(actions_of(env, np.random.default_rng(0)))  # goes on without a window
    assert not pygame.display.get_init()
    env.close()
    env.step(actions_of(env, np.random.default_rng(0)))  # and after close() there is one again
    assert pygame.display.get_init()
    env.close()


@pytest.mark.parametrize(
    "copied", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
def test_copies_drop_the_viewer(copied):
    env = all_modules["beach_bar_v0"].parallel_env(num_agents=10, render_mode="rgb_array")
    env.reset(seed=0)
    shown = env.render()
    twin = copied(env)
    assert twin.rendering.viewer is None
    assert env.rendering.viewer is not None
    np.testing.assert_array_equal(twin.render(), shown)
    actions = actions_of(env, np.random.default_rng(0))
    assert env.step(actions)[1] == twin.step(actions)[1]


def test_no_render_mode():
    env = all_modules["lq_v0"].parallel_env(num_agents=3)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode=None"):
        assert env.render() is None
    env.close()
    for make in (all_modules["lq_v0"].parallel_env, all_modules["lq_v0"].vector_env):
        with pytest.raises(ValueError, match="render_mode"):
            make(render_mode="ansi")


def test_record_video_parallel(tmp_path):
    env = all_modules["lq_v0"].parallel_env(num_agents=20, render_mode="rgb_array", horizon=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moviepy's own
        recorded = RecordVideoParallel(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
        rng = np.random.default_rng(0)
        recorded.reset(seed=0)
        while recorded.agents:
            recorded.step(actions_of(env, rng))
        recorded.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert len(frames_of(video)) == 5
    assert frames_of(video).shape[1:3] == (720, 720)


def frames_of(path):
    """All frames of a film, (height, width, 3) integers."""
    command = [
        get_ffmpeg_exe(),
        "-i",
        str(path),
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    w, h = map(int, re.search(rb"Video: .*? (\d{2,4})x(\d{2,4})[ ,]", done.stderr).groups())
    return np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, h, w, 3).astype(int)


def test_code_on_the_page_runs(tmp_path, monkeypatch):
    """Blocks of the page are one session."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "viewer.md").read_text(), re.S)
    session = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moviepy's own
        exec("\n".join(blocks), session)
    assert session["picture"].shape == (720, 720, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"videos", "half.gif"}


def run(program):
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_pygame_is_loaded_by_the_first_picture_only_and_no_more_of_it_than_needed():
    done = run(
        """
import sys
import mfg_envs.viewer.session
from mfg_envs import lq_v0
def step(env):
    env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
step(lq_v0.parallel_env(num_agents=3, render_mode="rgb_array"))
print("pygame" in sys.modules)
env = lq_v0.parallel_env(num_agents=3, render_mode="rgb_array")
step(env)
env.render()
pygame = sys.modules["pygame"]
print(pygame.font.get_init(), pygame.display.get_init(), pygame.get_init(), pygame.mixer.get_init() is not None)
env = lq_v0.parallel_env(num_agents=3, render_mode="human")
step(env)
print(pygame.display.get_init(), pygame.get_init(), pygame.mixer.get_init() is not None, pygame.joystick.get_init())
"""
    )
    lines = ["False", "True False False False", "True False False False"]
    assert done.stdout.splitlines() == lines, done.stderr


@pytest.mark.parametrize("instead", ["nothing", "pygame"])
def test_without_pygame_ce_the_error_names_the_extra(instead):
    """Nothing by that name, or pygame, which has no fblits."""
    done = run(
        f"""
import sys, types
if {instead!r} == "pygame":
    sys.modules["pygame"] = types.ModuleType("pygame")
else:
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("pygame", "tyro"):
                raise ModuleNotFoundError(f"No module named {{name!r}}")
    sys.meta_path.insert(0, Missing())
from mfg_envs import lq_v0
env = lq_v0.parallel_env(num_agents=3, render_mode="rgb_array")
env.reset(seed=0)
try:
    env.render()
except ImportError as error:
    print(error)
from mfg_envs.__main__ import main
main()
"""
    )
    assert "mfg-envs[render]" in done.stdout
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "mfg-envs[render]" in done.stderr
    assert "Traceback" not in done.stderr


# --- the window ----------------------------------------------------------------------------------------------------


@pytest.fixture
def window(tmp_path):
    made = []

    def make(game=ROOMS, players=None, num_agents=200, **options):
        players = players or [random_player(game)]
        made.append(Window(sessions(game, players, num_agents), folder=tmp_path, **options))
        return made[-1]

    yield make
    pygame.display.quit()


def send(window, *events):
    """Post events and let the window take them."""
    for event in events:
        pygame.event.post(event)
    for event in pygame.event.get():
        window.handle(event)
    window.draw()


def key(name, mod=0, text=""):
    return pygame.event.Event(pygame.KEYDOWN, key=getattr(pygame, f"K_{name}"), mod=mod, unicode=text, scancode=0)


def mouse(kind, pos, button=1):
    if kind == pygame.MOUSEMOTION:
        return pygame.event.Event(kind, pos=pos, rel=(0, 0), buttons=(0, 0, 0))
    return pygame.event.Event(kind, pos=pos, button=button)


def shown():
    return pygame.surfarray.array3d(pygame.display.get_surface()).astype(int).swapaxes(0, 1)


def pixel_of(window, place, panel=0, time=0.0):
    return tuple(int(a) for a in window._axes()[panel].pixels(np.array([place]), time)[0])


def test_time_goes_by(window):
    w = window(speed=8)
    session = w.sessions[0]
    w.advance(0.01)
    assert session.t == 1
    assert 0 < w.phase < 1
    w.advance(0.125)
    assert session.t == 2
    w.advance(10.0)  # a slow frame does not skip the play
    assert session.t <= 6
    for _ in range(100):
        w.advance(1.0)
    assert session.done
    assert w.phase == 1.0
    w.draw()


def test_space_pauses_and_plays_again_at_the_end(window):
    w = window()
    send(w, key("SPACE"))
    assert w.paused
    w.advance(1.0)
    assert w.sessions[0].t == 0
    send(w, key("SPACE"))
    assert not w.paused
    for _ in range(100):
        w.advance(1.0)
    assert w.sessions[0].done
    send(w, key("SPACE"))
    assert w.sessions[0].t == 0
    assert not w.paused


def test_arrows_step_and_change_speed(window):
    w = window(speed=8)
    session = w.sessions[0]
    x = session.crowd.x
    send(w, key("RIGHT"), key("RIGHT"))
    assert session.t == 2
    assert w.paused
    send(w, key("LEFT"))
    assert session.t == 1
    send(w, key("LEFT"), key("LEFT"))
    assert session.t == 0
    np.testing.assert_array_equal(session.crowd.x, x)
    w.paused, w.phase = False, 1.0
    w.advance(0.05)
    assert session.t == 1
    send(w, key("RIGHT"))  # completes the step that is under way
    assert (session.t, w.phase) == (1, 1.0)
    send(w, key("UP"))
    assert w.speed == 15
    for _ in range(9):
        send(w, key("UP"))
    assert w.speed == 60
    for _ in range(9):
        send(w, key("DOWN"))
    assert w.speed == 1


def test_r_starts_again_and_shift_r_with_new_noise(window):
    w = window()
    session = w.sessions[0]
    x = session.crowd.x
    send(w, key("RIGHT"), key("r"))
    assert session.t == 0
    np.testing.assert_array_equal(session.crowd.x, x)
    send(w, key("r", pygame.KMOD_SHIFT))
    assert session.seed == 1
    assert not np.array_equal(session.crowd.x, x)


def test_d_c_and_t_change_the_picture(window):
    w = window()
    send(w, key("RIGHT"), key("RIGHT"), key("RIGHT"))
    pixels = shown()
    send(w, key("d"))
    assert not w.density
    assert w.scenes()[0].density is None
    assert brightness(shown()).sum() < brightness(pixels).sum()
    send(w, key("d"))
    assert w.scenes()[0].density is not None
    send(w, key("t"))
    assert w.scenes()[0].paths is not None
    send(w, key("t"))
    assert w.scenes()[0].paths is None
    quantities = []
    for _ in range(3):
        send(w, key("c"))
        quantities.append(w.scenes()[0].quantity)
    assert quantities == ["speed", "reward", "heading"]


def test_plus_and_minus(window):
    w = window(num_agents=200)
    plus, minus = key("EQUALS", pygame.KMOD_SHIFT, "+"), key("MINUS", 0, "-")
    counts = []
    for event in (
        plus,
        plus,
        minus,
        minus,
        minus,
        minus,
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_KP_PLUS, mod=0),
    ):
        send(w, event)
        counts.append(w.sessions[0].crowd.num_agents)
    assert counts == [500, 1000, 500, 200, 100, 100, 200]
    for _ in range(len(NUMBERS)):
        send(w, plus)
    assert w.sessions[0].crowd.num_agents == 10_000
    send(w, key("RIGHT"))
    assert w.sessions[0].t == 1


def test_m_switches_the_crowd(window):
    w = window(LINE, [exact(LINE)])
    send(w, key("m"))
    assert w.sessions[0].crowd.mean_field is not None
    assert "loaded" in w._whose()
    send(w, key("RIGHT"), key("m"))
    assert w.sessions[0].crowd.mean_field is None
    w = window(LINE)
    send(w, key("m"))
    assert "no mean field" in w._message


def test_s_saves_a_picture_under_a_name_of_its_own(window, tmp_path):
    w = window(BEACH)
    send(w, key("RIGHT"), key("s"), key("s"))
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert saved == ["BeachBar-t001-2.png", "BeachBar-t001.png"]
    image = pygame.image.load(tmp_path / "BeachBar-t001.png")
    assert image.get_size() == (720, 720)
    w.folder = tmp_path / "missing"
    send(w, key("s"))
    assert "cannot save" in w._message


@pytest.mark.parametrize("event", [key("h"), key("SLASH", pygame.KMOD_SHIFT, "?")], ids=["H", "?"])
def test_h_shows_the_keys(window, event):
    w = window()
    send(w)
    before = shown()
    send(w, event)
    assert w.help
    middle = (shown() != before)[200:500, 250:470].any(axis=-1)
    assert middle.mean() > 0.5
    send(w, event)
    assert not w.help
    for name in ("Space", "Right, Left", "Up, Down", "R, Shift-R", "D", "C", "+, -", "M", "T", "S", "H, ?", "Q, Esc"):
        assert any(line.startswith(name + "\t") for line in KEYS)


@pytest.mark.parametrize("event", [key("q"), key("ESCAPE"), pygame.event.Event(pygame.QUIT)], ids=["Q", "Esc", "close"])
def test_quitting(window, event):
    w = window()
    pygame.event.post(event)
    w.run()
    assert w.closed
    assert not pygame.display.get_init()


def test_a_click_drops_a_handful(window):
    w = window()
    at = pixel_of(w, [0.5, 0.5])
    send(w, mouse(pygame.MOUSEBUTTONDOWN, at), mouse(pygame.MOUSEBUTTONUP, at))
    session = w.sessions[0]
    assert session.crowd.num_agents == 220
    assert np.abs(session.crowd.x[200:] - 0.5).max() < 0.15
    wall = pixel_of(w, [0.0, 0.0])
    send(w, mouse(pygame.MOUSEBUTTONDOWN, wall), mouse(pygame.MOUSEBUTTONUP, wall))
    assert session.crowd.num_agents == 220
    outside = (5, 700)
    send(w, mouse(pygame.MOUSEBUTTONDOWN, outside), mouse(pygame.MOUSEBUTTONUP, outside))
    send(w, mouse(pygame.MOUSEBUTTONDOWN, at, button=3), mouse(pygame.MOUSEBUTTONUP, at, button=3))
    assert session.crowd.num_agents == 220
    send(w, key("r"))
    assert session.crowd.num_agents == 200


@pytest.mark.parametrize("game", [ROOMS, LINE], ids=["map", "space-time"])
def test_dragging_plays_one_agent_against_the_crowd(window, game):
    w = window(game, [Player("nothing", Nothing(game))])
    session = w.sessions[0]
    start = session.crowd.x[11]
    at, to = pixel_of(w, start), pixel_of(w, start + 0.3)
    send(w, mouse(pygame.MOUSEBUTTONDOWN, at), mouse(pygame.MOUSEMOTION, to))
    row = session.hand.row
    assert np.abs(session.crowd.x[row] - start).max() < 0.02
    np.testing.assert_allclose(session.target, start + 0.3, atol=0.02)
    send(w, *[key("RIGHT")] * 4)
    moved = session.crowd.x[row] - start
    assert moved.sum() > 0.1
    assert session.hand.own == pytest.approx(session.returns[row])
    send(w, mouse(pygame.MOUSEBUTTONUP, to))
    assert session.target is None
    assert session.hand.row == row  # still marked, and its return goes on
    assert session.crowd.num_agents == 200
    send(w, key("r"))
    assert session.hand is None


def test_pointing_tells_density_and_reward(window):
    w = window()
    at = pixel_of(w, [-0.7, -0.7])
    send(w)
    before = shown()
    send(w, mouse(pygame.MOUSEMOTION, at))
    assert (shown() != before)[at[1] : at[1] + 80, at[0] : at[0] + 120].any()
    lines = w._at_pointer(0, at)
    density, reward = w.sessions[0].probe(w._axes()[0].state(at), 0)
    assert lines[1:] == [f"density\t{density:.3g}", f"reward\t{reward:.3g}"]
    send(w, pygame.event.Event(pygame.WINDOWLEAVE))
    np.testing.assert_array_equal(shown(), before)
    line = window(LINE)
    send(line, *[key("RIGHT")] * 5)
    past, future = (pixel_of(line, [-1.0], time=t) for t in (2.0, 9.0))
    assert "t = 2" in line._at_pointer(0, past)[0]
    assert len(line._at_pointer(0, past)) == 3
    assert len(line._at_pointer(0, future)) == 1


def test_two_policies_side_by_side(window):
    w = window(LINE, [exact(LINE), Player("nothing", Nothing(LINE))])
    send(w, key("RIGHT"), key("RIGHT"))
    assert [session.t for session in w.sessions] == [2, 2]
    one, other = w.scenes()
    assert one.stage == other.stage
    assert one.title != other.title
    assert "exploitability 0" in one.facts
    assert "exploitability" not in other.facts
    np.testing.assert_array_equal(one.nash, other.nash)
    at = pixel_of(w, [0.5], panel=1)
    send(w, mouse(pygame.MOUSEBUTTONDOWN, at), mouse(pygame.MOUSEBUTTONUP, at))
    assert [session.crowd.num_agents for session in w.sessions] == [200, 220]
    assert w.layout.width > 1.4 * w.layout.height


def test_the_window_can_be_resized(window):
    w = window()
    for size in ((1000, 500), (400, 300), (1600, 1200)):
        pygame.display.set_mode(size, pygame.RESIZABLE)
        send(w, pygame.event.Event(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1]))
        x, y, width, height = w._axes()[0].rect
        assert abs(width - height) <= 1
        assert x + width <= w.layout.width
        assert y + height <= w.layout.height


# --- films and pictures --------------------------------------------------------------------------------------------


def test_films(tmp_path):
    game = LinearQuadratic(horizon=5)
    players = [Player("nothing", Nothing(game)), exact(game)]
    gif = film(tmp_path / "a.gif", game, players, 100, side=120, progress=False)
    assert gif.stat().st_size < 2_000_000
    frames = frames_of(gif)
    assert len(frames) >= 5 * 2
    assert frames[0].shape[0] % 16 == frames[0].shape[1] % 16 == 0
    mp4 = film(tmp_path / "b.mp4", game, players, 100, side=120, steps_per_second=10, progress=False)
    frames = frames_of(mp4)
    assert frames[0].shape[0] % 16 == frames[0].shape[1] % 16 == 0
    growth = [np.abs(frame - frames[0]).mean() for frame in frames]
    assert growth[-1] > growth[20] > growth[5]  # at the end, on the way, still held at the start
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "b.mp4"]  # nothing partial is left


def test_a_gif_gives_up_colours_and_frames_to_stay_small(tmp_path, monkeypatch):
    game = FourRooms(horizon=6)
    whole = film(tmp_path / "a.gif", game, [random_player(game)], 300, side=200, progress=False)
    monkeypatch.setattr("mfg_envs.viewer.film.GIF_BYTES", whole.stat().st_size // 3)
    small = film(tmp_path / "b.gif", game, [random_player(game)], 300, side=200, progress=False)
    assert small.stat().st_size < 0.7 * whole.stat().st_size


def test_strips_of_snapshots(tmp_path):
    game = FourRooms(horizon=8)
    path = picture(
        tmp_path / "a.png", game, [random_player(game), Player("nothing", Nothing(game))], 100, side=120, progress=False
    )
    image = pygame.surfarray.array3d(pygame.image.load(path)).swapaxes(0, 1).astype(int)
    walls = (image == palette.WALL).all(axis=-1)
    columns = np.flatnonzero(np.diff(walls.sum(axis=0) > 150) == 1)  # each panel's upright walls begin once
    assert len(columns) >= 4
    one = picture(tmp_path / "b.png", BeachBar(horizon=4), [random_player(BEACH)] * 2, 100, side=120, progress=False)
    w, h = pygame.image.load(one).get_size()
    assert w > 2 * h  # side by side
    with pytest.raises(ValueError, match="times"):
        picture(tmp_path / "c.png", game, [random_player(game)], times=(9,), progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: film(path / "a.avi", LINE, [random_player(LINE)]), "must end in"),
        (lambda path: film(path / "no" / "a.gif", LINE, [random_player(LINE)]), "no folder"),
        (lambda path: film(path / "a.gif", LINE, [random_player(LINE)], steps_per_second=0), "steps_per_second"),
        (lambda path: film(path / "a.gif", LINE, [random_player(LINE)], num_agents=0), "num_agents"),
        (lambda path: film(path / "a.gif", LINE, [random_player(LINE)], side=5), "side"),
        (lambda path: picture(path / "a.gif", LINE, [random_player(LINE)]), "must end in"),
    ],
)
def test_what_cannot_be_filmed(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- who plays, and the command line -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """An equilibrium.pt of a linear-quadratic game that is not the default one, untrained."""
    game = LinearQuadratic(horizon=4)
    torch.manual_seed(0)
    policy, flow = AveragePolicy(1, 1, 4, (0.0,), (1.0,), (10.0,)), Flow(1, 4)
    flow.standardise(simulate(game, policy, num_agents=50, seed=0).states)
    path = tmp_path_factory.mktemp("lq_v0__dedafp_ppo__1") / "equilibrium.pt"
    save_equilibrium(path, game, policy, flow.eval(), value=-9.0, exploitability=0.125)
    return path


def test_a_file_brings_its_game_along(learnt):
    game, players = line_up("lq_v0", [str(learnt), "exact", "nothing"])
    assert game == LinearQuadratic(horizon=4)
    assert players[0].name.startswith("lq_v0__dedafp_ppo__1")
    session = Session(game, players[0], 100)
    session.step()
    assert "exploitability 0.12" in session.scene().facts
    assert session.switch_crowd()
    session.step()
    painted(session.scene())
    assert session.back()
    assert line_up("mfg_envs/lq-v0", [str(learnt)], ["horizon=4"])[0] == game


def test_bad_players(learnt, tmp_path):
    (tmp_path / "corrupt.pt").write_bytes(learnt.read_bytes()[:1000])
    (tmp_path / "text.pt").write_text("no equilibrium")
    for env_id, policy, constants, message in (
        ("lq_v0", str(tmp_path / "missing.pt"), (), "no file"),
        ("lq_v0", str(tmp_path / "corrupt.pt"), (), "truncated"),
        ("lq_v0", str(tmp_path / "text.pt"), (), "truncated"),
        ("lq_v0", str(tmp_path), (), "no file"),
        ("beach_bar_v0", str(learnt), (), "equilibrium of LinearQuadratic, not of beach_bar_v0"),
        ("lq_v0", str(learnt), ("horizon=5",), "not of"),
        ("lq_v1", "nothing", (), "no environment"),
        ("lq_v0", "nothing", ("c_x",), "NAME=VALUE"),
        ("lq_v0", "nothing", ("c_y=1",), "no such constant"),
        ("lq_v0", "nothing", ("c_x=-1",), "c_x"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            line_up(env_id, [policy], constants)


def test_constants():
    assert make_game("four_rooms_v0", ["crowd=congestion", "x_goal=(0.5, 0.5)"]) == FourRooms(
        crowd="congestion", x_goal=(0.5, 0.5)
    )


def test_solutions_on_a_grid_are_kept(tmp_path, monkeypatch):
    game = BeachBar(horizon=3)
    first = exact(game, tmp_path)
    (file,) = tmp_path.iterdir()
    assert first.name == "equilibrium on a grid"

    def solved_again(*args):
        raise AssertionError("solved again")

    with monkeypatch.context() as patch:
        patch.setattr("mfg_envs.equilibrium.grid._fictitious_play", solved_again)
        assert exact(game, tmp_path).equilibrium.value == first.equilibrium.value
        with pytest.raises(AssertionError, match="solved again"):
            exact(BeachBar(horizon=3, c_a=0.25), tmp_path)
    file.write_bytes(file.read_bytes()[:200])  # damaged: solved anew
    assert exact(game, tmp_path).equilibrium.value == first.equilibrium.value
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exact(game)
    assert len(list((tmp_path / "cache" / "mfg-envs").iterdir())) == 1


def command(*arguments):
    cli.main(list(arguments))


def test_commands(tmp_path, capsys):
    out = str(tmp_path / "a.png")
    command(
        "picture",
        "lq_v0",
        "--policy",
        "nothing",
        "--versus",
        "exact",
        "--out",
        out,
        "--side",
        "120",
        "--num-agents",
        "100",
    )
    assert "a.png" in capsys.readouterr().out
    out = str(tmp_path / "a.gif")
    command("film", "beach_bar_v0", "--constants", "horizon=3", "--out", out, "--side", "120", "--quantity", "speed")
    assert "MB" in capsys.readouterr().out
    assert (tmp_path / "a.gif").stat().st_size > 1000


def test_play_opens_a_window(monkeypatch):
    seen = []

    def run_once(self):
        self.advance(0.1)
        self.draw()
        seen.append((self.speed, [session.crowd.num_agents for session in self.sessions]))

    monkeypatch.setattr(Window, "run", run_once)
    command("play", "lq_v0", "--policy", "exact", "--versus", "nothing", "--speed", "4", "--num-agents", "150")
    assert seen == [(4.0, [150, 150])]
    pygame.display.quit()


@pytest.mark.parametrize(
    "arguments",
    [
        ("play", "lq_v0", "--policy", "/missing/equilibrium.pt"),
        ("play", "lq_v1"),
        ("play", "lq_v0", "--speed", "0"),
        ("play", "lq_v0", "--num-agents", "0"),
        ("film", "lq_v0", "--out", "a.avi"),
        ("picture", "lq_v0", "--out", "/missing/a.png"),
        ("picture", "lq_v0", "--out", "/missing/a.png", "--constants", "x"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments):
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    assert str(stopped.value.code).startswith("error: ")
    assert "\n" not in str(stopped.value.code)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_no_display():
    for environment in ({}, {"DISPLAY": ":12345"}):
        done = subprocess.run(
            [sys.executable, "-m", "mfg_envs", "play", "lq_v0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={k: v for k, v in os.environ.items() if k not in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY")}
            | environment,
        )
        assert done.returncode == 1
        assert re.fullmatch(r"error: there is no display.*\n", done.stderr), done.stderr
        assert done.stdout == ""


# --- the solver ----------------------------------------------------------------------------------------------------


def test_the_solver_films_its_average_policy(tmp_path):
    path = Path(__file__).parent.parent / "solvers" / "dedafp_ppo.py"
    spec = importlib.util.spec_from_file_location("solver_that_films", path)
    solver = importlib.util.module_from_spec(spec)
    sys.modules["solver_that_films"] = solver
    spec.loader.exec_module(solver)
    tiny = {"iterations": 1, "updates": 1, "num_agents": 16, "policy_steps": 2, "flow_steps": 2, "flow_agents": 16}
    args = solver.Args(runs_dir=tmp_path, constants=("horizon=3",), oracle_agents=4, capture_video=True, **tiny)
    run = solver.train(args)
    assert (run / "swarm.mp4").stat().st_size > 10_000
    assert exploitability(LinearQuadratic(horizon=3), Nothing(LINE), num_agents=4).value > 0


def test_a_title_names_the_constants_that_differ_also_where_a_field_has_no_default():
    @dataclass(frozen=True)
    class Beach(BeachBar):
        pier: float = field(kw_only=True)

    assert title(BeachBar()) == "BeachBar"
    assert title(BeachBar(x_bar=0.1)) == "BeachBar, x_bar=0.1"
    assert title(Beach(pier=0.5)) == "Beach, pier=0.5"
    env = CrowdParallelEnv(Beach(pier=0.5), num_agents=5, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (720, 720, 3)
    env.close()
