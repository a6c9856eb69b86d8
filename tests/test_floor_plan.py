"""Floor plans: exact areas, and reflection that nothing gets past."""

import dataclasses
import json
import pickle
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.stats import chi2

from mfg_envs.games.floor_plan import FloorPlan, cross_of_rooms

KINDS = [(np, np.float64), (np, np.float32), (torch, torch.float64), (torch, torch.float32)]
kinds = pytest.mark.parametrize(("xp", "dtype"), KINDS, ids=["np64", "np32", "torch64", "torch32"])
ROOMS, SHUT = cross_of_rooms(), cross_of_rooms(door=0.0)
BLOCK = FloorPlan((-2, -2), (2, 2), [((0, 0), (1, 1))])
GRID = 8  # the random plans are cut out of a grid of this many cells a side


@st.composite
def plans(draw, dims=(1, 2, 3), max_walls=7):
    """The box [-1, 1]^d with walls that overlap, touch along faces, edges and corners, and poke beyond the border."""
    dim = draw(st.sampled_from(dims))
    corner = st.tuples(*[st.integers(-1, GRID - 1)] * dim)
    size = st.tuples(*[st.integers(1, 4)] * dim)
    walls = draw(st.lists(st.tuples(corner, size), max_size=max_walls))
    return FloorPlan(
        [-1.0] * dim,
        [1.0] * dim,
        [(2 * np.array(a) / GRID - 1, 2 * (np.array(a) + np.array(b)) / GRID - 1) for a, b in walls],
    )


def regions(plan):
    """The connected regions of a plan on the grid: 0 where solid, a layer of 0 around. Cells connect through sides."""
    centres = np.stack(np.meshgrid(*[(np.arange(GRID) + 0.5) * 2 / GRID - 1] * plan.dim, indexing="ij"), axis=-1)
    solid = np.zeros(centres.shape[:-1], dtype=bool)
    for low, high in plan.walls:
        solid |= np.all((centres > low) & (centres < high), axis=-1)
    return np.pad(label(~solid)[0], 1)


def regions_at(labels, x):
    """The regions that touch each x (n, d): (n, 2^d), one for each grid cell around it."""
    position = (np.asarray(x, dtype=np.float64) + 1) * GRID / 2
    below, above = np.ceil(position).astype(int), np.floor(position).astype(int) + 1
    choices = product(*([below[:, i], above[:, i]] for i in range(x.shape[1])))
    return np.stack([labels[indices] for indices in choices], axis=1)


def awkward(plan, n, seed, dtype=np.float64):
    """Agents in the free region and displacements, with as many coincidences with faces as one may fear."""
    rng = np.random.default_rng(seed)
    faces = 2 * rng.integers(-2, GRID + 3, (2, n, plan.dim)) / GRID - 1
    x = rng.uniform(-1, 1, (n, plan.dim))
    x = np.where(rng.random(x.shape) < 0.3, np.clip(faces[0], -1, 1), x).astype(dtype)
    v = rng.normal(size=x.shape) * 10 ** rng.uniform(-9, 6, (n, 1))
    v = np.where(rng.random(x.shape) < 0.2, faces[1] - x, v)  # to a face, or a mirror image of one, exactly
    v = np.where(rng.random(x.shape) < 0.2, 0.0, v)
    diagonal = rng.random((n, 1)) < 0.1
    v = np.where(diagonal, rng.choice([-1, 1], x.shape) * rng.integers(1, 9, (n, 1)) / GRID, v).astype(dtype)
    inside = plan.contains(x)
    return x[inside], v[inside]


def reflect(plan, x, v, xp=np, dtype=np.float64):
    """`plan.reflect` of anything array-like, as a NumPy array of its dtype."""
    return np.asarray(plan.reflect(xp.asarray(x, dtype=dtype), xp.asarray(v, dtype=dtype)))


def inside_a_wall(plan, x):
    return np.any([np.all((x > np.array(a, x.dtype)) & (x < np.array(b, x.dtype)), axis=1) for a, b in plan.walls], 0)


def uniform(plan, n, rng):
    """`n` points uniform on the free region."""
    x = rng.uniform(plan.low, plan.high, (4 * n, plan.dim))
    return x[plan.contains(x)][:n]


def fold(x, v, low, high):
    """The exact fold of one coordinate, in rational arithmetic."""
    x, v, low, high = (Fraction(float(a)) for a in (x, v, low, high))
    phase = (x + v - low) % (2 * (high - low))
    return float(low + min(phase, 2 * (high - low) - phase))


def trace_slowly(plan, x, v):
    """One agent, wall by wall, in rational arithmetic: (end, remaining displacement, contacts); meets no edges."""
    x, v = [Fraction(a) for a in x], [Fraction(a) for a in v]
    axes, max_contacts = range(plan.dim), FloorPlan.MAX_CONTACTS if plan.walls else 10**6
    for contacts in range(max_contacts + 1):
        hits = [((Fraction(plan.high[i] if v[i] > 0 else plan.low[i]) - x[i]) / v[i], i) for i in axes if v[i]]
        for low, high in plan.walls:
            spans = []
            for i in axes:
                to_low, to_high = Fraction(low[i]) - x[i], Fraction(high[i]) - x[i]
                if v[i]:
                    spans.append((*sorted((to_low / v[i], to_high / v[i])), i))
                elif not to_low < 0 < to_high:
                    spans.append((Fraction(1), Fraction(0), i))
            enter, _, axis = max(spans)
            if 0 <= enter < min(leave for _, leave, _ in spans):
                hits.append((enter, axis))
        time, axis = min(hits, default=(1, 0))
        if contacts == max_contacts or time >= 1:
            break
        x = [a + time * b for a, b in zip(x, v, strict=True)]
        v = [(1 - time) * b for b in v]
        v[axis] *= -1
    if contacts < max_contacts:
        x = [a + b for a, b in zip(x, v, strict=True)]
    return np.array(x, dtype=float), np.array(v, dtype=float), contacts


# The plan itself


def test_fields_become_nested_tuples_of_floats():
    plan = FloorPlan(np.array([-1, -1]), [1, 1], torch.tensor([[[0, 0], [1, 2]]]))
    assert plan == FloorPlan((-1.0, -1.0), (1.0, 1.0), (((0.0, 0.0), (1.0, 2.0)),))
    assert type(plan.low[0]) is type(plan.high[0]) is type(plan.walls[0][1][0]) is float
    assert plan.dim == 2
    assert FloorPlan([0], [3]).walls == ()


def test_plans_are_values():
    plan = cross_of_rooms()
    before = pickle.dumps(plan)
    plan.reflect(np.zeros((1, 2)), np.ones((1, 2)))
    assert plan.free_area > 0
    assert pickle.dumps(plan) == before  # what is precomputed stays out of it
    assert pickle.loads(before) == plan == cross_of_rooms()
    assert hash(plan) == hash(cross_of_rooms())
    assert plan != SHUT
    assert FloorPlan(**json.loads(json.dumps(dataclasses.asdict(plan)))) == plan
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.low = (0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "walls", "message"),
    [
        ((), (), (), "low and high must be two corners"),
        ((0, 0), (1,), (), "low and high must be two corners"),
        (0.0, 1.0, (), "low and high must be a pair of corners"),
        ((0, "a"), (1, 1), (), "low and high must be a pair of corners"),
        ((0, 0), (1, 0), (), "low and high must be a lower corner"),
        ((0, np.nan), (1, 1), (), "low and high must be finite"),
        ((0, 0), (1, np.inf), (), "low and high must be finite"),
        ((0, 0), (1, 1), 3, "walls must be pairs"),
        ((0, 0), (1, 1), [3], r"walls\[0\] must be a pair of corners"),
        ((0, 0), (1, 1), [((0, 0), (1, 1), (2, 2))], r"walls\[0\] must be a pair of corners"),
        ((0, 0), (1, 1), [((0, 0), (1, 1)), ((0,), (1,))], r"walls\[1\] must be two corners of 2"),
        ((0, 0), (1, 1), [((0, 0), (1, np.nan))], r"walls\[0\] must be finite"),
        ((0, 0), (1, 1), [((0.5, 0), (0.5, 1))], r"walls\[0\] must be a lower corner"),
    ],
)
def test_bad_plans_are_named(low, high, walls, message):
    with pytest.raises(ValueError, match=message):
        FloorPlan(low, high, walls)


@pytest.mark.parametrize("method", ["contains", "reflect"])
@pytest.mark.parametrize("x", [np.zeros(2), np.zeros((3, 1)), np.zeros((1, 3, 2)), np.zeros((3, 2), dtype=int)])
def test_bad_states_are_named(method, x):
    with pytest.raises(ValueError, match="x must"):
        getattr(ROOMS, method)(*[x] * (1 + (method == "reflect")))


def test_bad_displacements_are_named():
    with pytest.raises(ValueError, match="displacement must have shape"):
        ROOMS.reflect(np.zeros((3, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize("cells", [(3,), (3, 0), (3, 2.5), (3, 3, 3)])
def test_bad_grids_are_named(cells):
    with pytest.raises(ValueError, match="cells must be 2 positive integers"):
        ROOMS.free_fraction(cells)


@pytest.mark.parametrize(
    ("constants", "field"),
    [
        ({"wall": 0}, "wall"),
        ({"wall": np.nan}, "wall"),
        ({"wall": np.inf}, "door"),
        ({"wall": 0.6}, "door"),
        ({"door": -0.1}, "door"),
        ({"door": 0.91}, "door"),
        ({"door": np.nan}, "door"),
    ],
)
def test_bad_rooms_are_named(constants, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        cross_of_rooms(**constants)


# Areas


def test_the_area_of_the_four_rooms():
    assert ROOMS.free_area == pytest.approx(3.71, abs=1e-12)
    assert SHUT.free_area == pytest.approx(3.61, abs=1e-12)
    assert cross_of_rooms(0.05, 0.9).free_area == pytest.approx(4 - 0.01 - 4 * 0.1 * 0.05, abs=1e-12)  # widest doors


def test_free_fractions_by_hand():
    plan = FloorPlan((0, 0), (2, 1), [((0.5, 0), (1.5, 0.25)), ((1.25, -7), (1.5, 0.5)), ((1.4, 0.1), (9, 0.2))])
    assert plan.free_fraction((2, 1)) == pytest.approx(np.array([[1 - 0.125], [1 - 0.1875 - 0.05]]), abs=1e-12)
    assert plan.free_area == pytest.approx(2 - 0.125 - 0.1875 - 0.05, abs=1e-12)


def test_fractions_on_an_aligned_grid_are_zero_or_one():
    fraction = ROOMS.free_fraction((80, 80))
    assert set(fraction.flat) == {0.0, 1.0}
    assert fraction.sum() == round(3.71 * 1600)
    edges = np.linspace(-1, 1, 81)
    centres = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    assert np.array_equal(ROOMS.contains(points), fraction.reshape(-1) == 1)


@given(plan=plans(), n=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_fractions_are_those_of_a_finer_grid(plan, n):
    free = np.asarray(regions(plan)[(slice(1, -1),) * plan.dim] > 0, dtype=float)
    assert plan.free_area == pytest.approx(2.0**plan.dim * free.mean(), abs=1e-12)
    cells = (n, 3, 5)[: plan.dim]
    fine = free
    for axis, c in enumerate(cells):  # each grid cell in c parts, then GRID parts to a cell
        fine = np.repeat(fine, c, axis=axis)
        fine = np.add.reduceat(fine, np.arange(0, GRID * c, GRID), axis=axis) / GRID
    assert plan.free_fraction(cells) == pytest.approx(fine, abs=1e-12)
    assert plan.free_fraction(cells).mean() * 2**plan.dim == pytest.approx(plan.free_area, abs=1e-12)


# Membership


@kinds
def test_contains_faces_but_not_seams(xp, dtype):
    plan = FloorPlan((-1, -1), (1, 1), [((-0.3, -0.3), (0, 0.3)), ((0, -0.3), (0.3, 0.3)), ((0.6, 0.6), (1, 2))])
    face = dtype(0.3) if xp is np else torch.tensor(0.3, dtype=dtype).item()
    free = [(-face, 0.1), (0.1, face), (face, -face), (0.0, face), (-1, 1), (0.59, 1), (1, 0.59)]
    solid = [(0.1, 0.1), (0.0, 0.1), (0.7, 0.7), (1, 0.8), (0.8, 1), (1, 1), (1.01, 0), (0, -np.inf), (np.nan, 0.9)]
    answer = plan.contains(xp.asarray(free + solid, dtype=dtype))
    assert answer.dtype == xp.bool
    assert answer.tolist() == [True] * len(free) + [False] * len(solid)


@given(plan=plans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_contains_what_touches_a_free_cell(plan, seed):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((99, plan.dim)) < 0.5, rng.integers(0, GRID + 1, (99, plan.dim)) * 2 / GRID - 1, 0)
    x = np.where(rng.random(x.shape) < 0.3, rng.uniform(-1, 1, x.shape), x)
    assert np.array_equal(plan.contains(x), np.any(regions_at(regions(plan), x) > 0, axis=1))


# Nobody gets past


@kinds
@given(plan=plans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_nobody_leaves_their_region(xp, dtype, plan, seed):
    x, v = awkward(plan, 90, seed, np.float32 if dtype in (np.float32, torch.float32) else np.float64)
    end = reflect(plan, x, v, xp, dtype)
    assert end.dtype == x.dtype
    assert plan.contains(end).all()
    labels = regions(plan)
    before, after = regions_at(labels, x)[:, :, None], regions_at(labels, end)[:, None, :]
    assert np.all(np.any((before == after) & (before > 0), axis=(1, 2)))


place = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
number = st.floats(-2, 2) | st.sampled_from([0.0, 0.05, -0.05, 0.5, 1.0, -1.0, 0.1, 1e-30, -1e-45, 1e30, -3e38])


@kinds
@given(
    x=st.tuples(place, place),
    room=st.tuples(st.sampled_from([-1, 1]), st.sampled_from([-1, 1])),
    v=st.tuples(number, number),
    wall=st.floats(1e-3, 0.5),
    door=st.just(0.0) | st.floats(0, 1),
)
@example(x=(0.0, 0.5), room=(-1, 1), v=(0.1, 0.0), wall=0.05, door=0.0)
@settings(max_examples=60, deadline=None)
def test_nobody_passes_a_shut_door(xp, dtype, x, room, v, wall, door):
    plan = cross_of_rooms(wall, min(door, 1 - 2 * wall))
    start = np.array(room) * (wall + np.array([x]) * (1 - wall))
    start = start.astype(np.float32 if dtype in (np.float32, torch.float32) else np.float64)
    assert plan.contains(start).all()
    end = reflect(plan, start, [v], xp, dtype)
    assert plan.contains(end).all()
    assert not inside_a_wall(plan, end).any()
    assert np.all(np.abs(end) <= 1)
    if door == 0:
        assert np.array_equal(np.sign(end), np.sign(start))


@kinds
@pytest.mark.parametrize("scale", [1e-3, 0.07, 1, 100, 1e6, 1e18])
def test_rooms_keep_their_agents(xp, dtype, scale):
    rng = np.random.default_rng(1)
    x = uniform(SHUT, 2000, rng)
    v = scale * rng.normal(size=x.shape)
    end = reflect(SHUT, x, v, xp, dtype)
    assert np.array_equal(np.sign(end), np.sign(x))
    assert not inside_a_wall(SHUT, end).any()
    end = reflect(ROOMS, x, v, xp, dtype)
    assert ROOMS.contains(end).all()
    assert not inside_a_wall(ROOMS, end).any()


@kinds
def test_infinite_displacements_end_inside(xp, dtype):
    v = [a for a in product([np.inf, -np.inf, 1.0, 0.0, 1e38], repeat=2) if np.inf in np.abs(a)]
    for plan in (ROOMS, SHUT, FloorPlan((-1, -1), (1, 1))):
        end = reflect(plan, [[-0.3, 0.4]] * len(v), v, xp, dtype)
        assert plan.contains(end).all()
        assert np.all(end[[a[1] == 0 for a in v], 1] == np.asarray(0.4, dtype=end.dtype))


# The path is right


@given(plan=plans(dims=(1, 2, 2, 3), max_walls=5), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1, 9]))
@settings(max_examples=40, deadline=None)
def test_paths_are_those_of_the_slow_tracer(plan, seed, scale):
    rng = np.random.default_rng(seed)
    x = uniform(plan, 8, rng)
    v = scale * rng.normal(size=x.shape)
    for start, displacement, end in zip(x, v, reflect(plan, x, v), strict=True):
        expected, _, contacts = trace_slowly(plan, start, displacement)
        nudged = trace_slowly(plan, start + 1e-7 * rng.choice([-1, 1], plan.dim), displacement)
        if contacts == nudged[2] and np.all(np.abs(nudged[0] - expected) < 1e-5):  # the path passes no edge closely
            assert end == pytest.approx(expected, abs=1e-11)


def test_paths_in_the_four_rooms_are_those_of_the_slow_tracer():
    rng = np.random.default_rng(2)
    x = uniform(ROOMS, 300, rng)
    v = np.repeat([0.1, 0.6, 3.0], 100)[:, None] * rng.normal(size=x.shape)
    paths = [trace_slowly(ROOMS, *agent) for agent in zip(x, v, strict=True)]
    contacts = np.array([path[2] for path in paths])
    assert set(range(6)) < set(contacts)
    assert contacts.max() < FloorPlan.MAX_CONTACTS
    assert reflect(ROOMS, x, v) == pytest.approx(np.array([path[0] for path in paths]), abs=1e-12)
    assert reflect(ROOMS, x, v, dtype=np.float32) == pytest.approx(np.array([path[0] for path in paths]), abs=1e-5)


@kinds
@given(
    ends=st.sampled_from([(-3.0, 5.0), (-0.1, 0.7), (1e-3, 1.1)]),
    u=st.floats(0, 1),
    v=st.floats(-1e8, 1e8, width=32) | st.floats(-10, 10, width=32) | st.sampled_from([0.0, 8.0, -8.0, 1.6, 1e-30]),
)
@settings(max_examples=80, deadline=None)
def test_without_walls_it_is_the_exact_fold(xp, dtype, ends, u, v):
    scalar = np.float32 if dtype in (np.float32, torch.float32) else np.float64
    low, high = scalar(ends[0]), scalar(ends[1])
    x = np.clip(scalar(ends[0] + u * (ends[1] - ends[0])), low, high)
    end = reflect(FloorPlan((ends[0], 0), (ends[1], 1)), [[x, 0.5]], [[v, 0.0]], xp, dtype)
    rounding = 4 * float(np.finfo(scalar).eps) * (8 + 10 * abs(v))  # of the period too, as often as it is passed
    assert abs(end[0, 0] - fold(x, scalar(v), low, high)) <= rounding
    assert low <= end[0, 0] <= high
    assert end[0, 1] == 0.5
    if low <= x + scalar(v) <= high:
        assert end[0, 0] == x + scalar(v)  # untouched, unrounded


@kinds
@pytest.mark.parametrize("ends", [(-0.1, 0.7), (-0.7, 0.3), (1e-3, 1.1), (-1 / 3, 0.1)])
def test_rounding_does_not_fold_anyone_out_of_the_box(xp, dtype, ends):
    plan = FloorPlan(ends[:1], ends[1:])
    width = ends[1] - ends[0]
    v = np.arange(-4000, 4000)[:, None] * width  # onto the border, again and again
    end = reflect(plan, np.full_like(v, ends[0] + 0.25 * width), v - 0.25 * width, xp, dtype)
    assert np.all((end >= np.array(ends[0], end.dtype)) & (end <= np.array(ends[1], end.dtype)))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_length_is_conserved_between_parallel_walls(dim):
    """In a box of their own, agents trace the fold of a line of the displacement's length, along each axis."""
    rng = np.random.default_rng(3)
    room = [(-1.0, 0.25), (-1.0, 1.0), (-0.5, 1.0)][:dim]
    walls = [((0.25, -1, -1), (0.5, 1, 1)), ((-1, -1, -1), (1, 1, -0.5))][: 1 + (dim == 3)]
    plan = FloorPlan([-1] * dim, [1] * dim, [(low[:dim], high[:dim]) for low, high in walls])
    x = np.stack([rng.uniform(*ends, 200) for ends in room], axis=1)
    v = rng.uniform(-5, 5, x.shape)
    expected = [
        [fold(*c, *ends) for c, ends in zip(zip(*a, strict=True), room, strict=True)] for a in zip(x, v, strict=True)
    ]
    assert reflect(plan, x, v) == pytest.approx(np.array(expected), abs=1e-12)


def test_paths_are_reversible():
    rng = np.random.default_rng(4)
    for plan in (
        ROOMS,
        FloorPlan([-1] * 3, [1] * 3, [((-0.5, -0.5, -2), (0.5, 0, 0.3)), ((0, -0.2, 0), (2, 0.4, 0.9))]),
    ):
        x = torch.as_tensor(uniform(plan, 2000, rng))
        v = torch.as_tensor(rng.normal(size=x.shape)).requires_grad_()
        end = plan.reflect(x, v)
        (slope,) = torch.autograd.grad(end.sum(), v)  # the sign that the contacts have given to each component
        assert (slope == -1).double().mean() > 0.2
        back = plan.reflect(end.detach(), -slope * v.detach())
        assert torch.allclose(back, x, rtol=0, atol=1e-12)


def test_at_the_last_contact_the_agent_stops_on_the_face():
    rng = np.random.default_rng(5)
    faces = {0.05, 0.375, 0.625, 1.0}
    x = uniform(ROOMS, 500, rng)
    v = 1e3 * rng.normal(size=x.shape)
    for dtype in (np.float64, np.float32):
        end = reflect(ROOMS, x, v, dtype=dtype)
        assert np.all(np.any(np.isin(np.abs(end), np.array(list(faces), dtype)), axis=1))
    paths = [trace_slowly(ROOMS, *agent) for agent in zip(x[:50], v[:50], strict=True)]
    assert all(path[2] == FloorPlan.MAX_CONTACTS for path in paths)
    assert reflect(ROOMS, x[:50], v[:50]) == pytest.approx(np.array([path[0] for path in paths]), abs=1e-9)
    along = reflect(ROOMS, [[-0.3, 0.7]], [[1e6, 0.0]])  # one component only, and still the other is untouched
    assert along.tolist() in ([[-0.05, 0.7]], [[-1.0, 0.7]])


def test_the_uniform_law_stays_uniform():
    rng = np.random.default_rng(6)
    x = uniform(ROOMS, 100_000, rng)
    for _ in range(8):
        x = ROOMS.reflect(x, 0.25 * rng.normal(size=x.shape))
    fraction = ROOMS.free_fraction((24, 24))
    expected = len(x) * fraction / fraction.sum()
    counts = np.histogram2d(*x.T, bins=24, range=[(-1, 1)] * 2)[0]
    assert np.all(counts[fraction == 0] == 0)
    cut = fraction > 0
    statistic = np.sum((counts - expected)[cut] ** 2 / expected[cut])
    assert 0.001 < chi2.sf(statistic, cut.sum() - 1) < 0.999


# Contacts that need care


@kinds
@pytest.mark.parametrize(
    ("x", "v", "end"),
    [
        ((-1, -1), (2, 2), (1, -1)),  # a corner of the wall, exactly: by axis, so that the second is the mirror
        ((1, -1), (2, -2), (1, -1)),  # a corner of the box
        ((0.5, -0.5), (-1, 1), (-0.5, 0.5)),  # past a corner of the wall, touching it: by axis, too
        ((-0.5, 0.5), (1, -1), (-0.5, -0.5)),
        ((0, 0), (1, 1), (1, -1)),  # from the corner into the wall
        ((0, 0), (1, -1), (1, -1)),  # from the corner away from it
        ((0, 0), (-1, 1), (-1, 1)),
        ((0, 0), (-1, -1), (-1, -1)),
        ((0, 1), (-1, -1), (-1, 0)),
        ((1, 0), (1, 1), (2, 1)),
        ((0, 0), (1, 0), (1, 0)),  # from the corner along a face
        ((0, 0), (0, 2), (0, 2)),
        ((1, 1), (0, -3), (1, -2)),
        ((-1, 0), (2.5, 0), (1.5, 0)),  # along a face, from end to end
        ((-1, 1), (2.5, 0), (1.5, 1)),
        ((1, -1), (0, 2.5), (1, 1.5)),
        ((0, -1), (0, 2.5), (0, 1.5)),
        ((0.5, 0), (0.25, 0.5), (0.75, -0.5)),  # from a face into the wall
        ((0.5, 1), (0.25, -0.5), (0.75, 1.5)),
        ((0.5, 0), (0.25, -0.5), (0.75, -0.5)),  # from a face away from it
        ((0.5, -0.5), (0.25, 0.5), (0.75, 0)),  # to a face and no further
        ((2, 2), (1, -0.5), (1, 1.5)),  # from the border out of the box
        ((2, 0.5), (0, 0), (2, 0.5)),
    ],
)
def test_faces_and_corners(xp, dtype, x, v, end):
    assert reflect(BLOCK, [x], [v], xp, dtype).tolist() == [list(end)]


@kinds
def test_who_starts_outside_the_free_region_stays(xp, dtype):
    x = [(0.5, 0.5), (0.5, 0.25), (2, 3), (-3, -3), (3, 3), (3, 0.5), (-2.5, 2)]
    agents = [(start, v) for start in x for v in product([-4, 0, 4], repeat=2)]
    start, v = np.array(agents, dtype=float).transpose(1, 0, 2)
    assert np.array_equal(reflect(BLOCK, start, v, xp, dtype), start)
    walled = np.all(np.abs(start - 0.5) < 0.5, axis=1)
    assert np.array_equal(reflect(FloorPlan((-2, -2), (2, 2)), start, v, xp, dtype)[~walled], start[~walled])
    assert np.isnan(reflect(BLOCK, [(3.0, 0.5), (0.5, 0.5)], [(0.0, np.nan)] * 2, xp, dtype)[0, 1])


@kinds
def test_touching_walls_leave_no_gap(xp, dtype):
    box = (-2, -2), (2, 2)
    side_by_side = FloorPlan(*box, [((-0.5, -0.5), (0, 0.5)), ((0, -0.5), (0.5, 0.5))])
    assert reflect(side_by_side, [(0, 1), (0, -1)], [(0, -1), (0, 1.25)], xp, dtype).tolist() == [[0, 1], [0, -1.25]]
    stacked = FloorPlan(*box, [((-0.5, 0), (0.5, 0.5)), ((-0.5, -0.5), (0.5, 0))])
    assert reflect(stacked, [(-1, 0), (1, 0)], [(1, 0), (-2, 0)], xp, dtype).tolist() == [[-1, 0], [2, 0]]
    assert reflect(stacked, [(0, 0)], [(1, 0)], xp, dtype).tolist() == [[0, 0]]  # on the seam: stays
    corners = FloorPlan(*box, [((-1, 0), (0, 1)), ((0, -1), (1, 0))])
    ends = reflect(corners, [(-0.5, -0.5), (-1.5, 0), (0, 1.5)], [(1, 1), (2, 0), (0, -2)], xp, dtype)
    assert ends.tolist() == [[-0.5, -0.5], [-0.5, 0], [0, 0.5]]


@kinds
def test_sliding_past_walls_on_either_side_of_the_line(xp, dtype):
    plan = FloorPlan((-2, -2), (2, 2), [((-1, 0), (-0.5, 1)), ((0.5, -1), (1, 0))])
    assert reflect(plan, [(-1.5, 0), (1.5, 0)], [(3, 0), (-3, 0)], xp, dtype).tolist() == [[1.5, 0], [-1.5, 0]]
    turned = FloorPlan((-2, -2), (2, 2), [((0, -1), (1, -0.5)), ((-1, 0.5), (0, 1))])
    assert reflect(turned, [(0, -1.5), (0, 1.5)], [(0, 3), (0, -3)], xp, dtype).tolist() == [[0, 1.5], [0, -1.5]]
    below_then_above = FloorPlan((-2, -2), (2, 2), [((-1, -1), (-0.5, 0)), ((0.5, 0), (1, 1))])
    assert reflect(below_then_above, [(-0.75, 0)], [(2.5, 0)], xp, dtype).tolist() == [[1.75, 0]]
    solid = FloorPlan((-2,) * 3, (2,) * 3, [((-1, 0, -2), (-0.5, 1, 2)), ((0.5, -1, -2), (1, 0, 2))])
    assert reflect(solid, [(-1.5, 0, 0)], [(3, 0, 0)], xp, dtype).tolist() == [[1.5, 0, 0]]


@kinds
def test_doors_as_wide_as_a_step(xp, dtype):
    x = [(0, 0.375), (0, 0.375), (0, 0.625), (-0.125, 0.375), (-0.125, 0.5)]
    v = [(0, 0.25), (0, 0.5), (0, 0.25), (0.25, 0.25), (0.25, 0)]
    end = [[0, 0.625], [0, 0.375], [0, 0.375], [0.125, 0.625], [0.125, 0.5]]
    assert reflect(ROOMS, x, v, xp, dtype).tolist() == end


@kinds
def test_nan_stays_with_its_agent(xp, dtype):
    x = np.array([(np.nan, 0.2), (0.3, 0.2), (0.3, 0.2), (-0.3, 0.2), (np.nan, np.nan)])
    v = np.array([(1.0, 1.0), (np.nan, 9.0), (1.0, 9.0), (np.inf, np.nan), (0.0, 0.0)])
    for plan in (ROOMS, FloorPlan((-1, -1), (1, 1))):
        end = reflect(plan, x, v, xp, dtype)
        assert np.array_equal(np.any(np.isnan(end), axis=1), [True, True, False, True, True])
        assert np.array_equal(np.isnan(end) >= np.isnan(x + v), np.ones_like(x))
        assert np.array_equal(end[2], reflect(plan, x[2:3], v[2:3], xp, dtype)[0])


def test_nobody_is_fine_too():
    assert ROOMS.reflect(np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    assert ROOMS.contains(np.zeros((0, 2))).shape == (0,)


# Arrays


@given(plan=plans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_agents_do_not_see_each_other(plan, seed):
    x, v = awkward(plan, 50, seed)
    order = np.random.default_rng(seed).permutation(len(x))[: len(x) // 2 + 1]
    assert np.array_equal(plan.reflect(x, v)[order], plan.reflect(x[order], v[order]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(plan=plans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_backends_agree(dtype, plan, seed):
    x, v = awkward(plan, 50, seed, dtype)
    end = plan.reflect(torch.as_tensor(x), torch.as_tensor(v))
    assert end.shape == x.shape
    assert end.numpy() == pytest.approx(plan.reflect(x, v), rel=0, abs=1e-12 if dtype == np.float64 else 1e-6)


def test_arguments_are_left_alone_and_the_dtype_is_that_of_x():
    x, v = np.full((2, 2), 0.3, dtype=np.float32), np.ones((2, 2))
    end = ROOMS.reflect(x, v)
    assert end.dtype == np.float32
    assert np.all(x == np.float32(0.3))
    assert np.all(v == 1)
    strided = np.asfortranarray(np.stack([x, x])[0].T).T
    assert np.array_equal(ROOMS.reflect(strided, np.repeat(v, 2, axis=1)[:, ::2]), end)


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(7)
    x = torch.as_tensor(uniform(ROOMS, 30, rng)).requires_grad_()
    v = torch.as_tensor(0.8 * rng.normal(size=x.shape)).requires_grad_()
    assert torch.autograd.gradcheck(ROOMS.reflect, (x, v))
    (slope,) = torch.autograd.grad(ROOMS.reflect(x, v).sum(), x)
    assert set(slope.flatten().tolist()) == {-1.0, 1.0}
    assert torch.autograd.gradcheck(FloorPlan((-1, 0), (0.7, 2)).reflect, (x.detach().abs().requires_grad_(), v))
    long = torch.tensor(
        [[31.7, 23.1], [-29.3, 40.9]], dtype=torch.float64, requires_grad=True
    )  # these stop at contacts
    assert torch.autograd.gradcheck(ROOMS.reflect, (x[:2].detach().requires_grad_(), long))


def test_inference_mode_does_not_spoil_later_gradients():
    plan = cross_of_rooms(wall=0.0625)
    x, v = torch.full((1, 2), 0.25), torch.full((1, 2), -0.25)
    with torch.inference_mode():
        end = plan.reflect(x, v)
    again = plan.reflect(x, v.requires_grad_())
    assert torch.equal(again, end)
    again.sum().backward()
    assert v.grad.tolist() == [[-1.0, -1.0]]
