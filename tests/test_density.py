"""The kernel density estimate: mass, walls, borders, leave-one-out, rates, the bandwidth rule."""

import math

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.stats import gaussian_kde, norm

from mfg_envs.games.floor_plan import FloorPlan, cross_of_rooms
from mfg_envs.mean_field.density import KernelDensity, density_met

LINE = FloorPlan((-1.0,), (1.0,))
CUT_LINE = FloorPlan((0.0,), (3.0,), (((1.0,), (1.2,)),))
ROOMS = cross_of_rooms()
SHUT_ROOMS = cross_of_rooms(door=0.0)
AWKWARD = FloorPlan(  # faces on no common grid, a wall of thickness 1e-4, walls that overlap or poke out
    (-0.3, 2.0),
    (1.1, 3.7),
    (
        ((0.3337, 2.2), (0.3338, 3.9)),
        ((-0.1, 2.5), (0.13, 2.61)),
        ((0.05, 2.3), (0.1, 3.0)),
        ((0.7, 3.111), (1.5, 3.3)),
    ),
)
FLOORS = [LINE, CUT_LINE, ROOMS, SHUT_ROOMS, AWKWARD]
NAMES = ["line", "cut line", "rooms", "shut rooms", "awkward"]
on_every_floor = pytest.mark.parametrize("floor", FLOORS, ids=NAMES)


def uniform(floor, n, seed=0):
    """n independent uniform points on the floor."""
    x = np.random.default_rng(seed).uniform(floor.low, floor.high, (4 * n + 100, floor.dim))
    return x[floor.contains(x)][:n]


def lattice(floor, n):
    """The centres of the free cells of a grid of n cells a side, and the volume of a cell."""
    axes = [low + (np.arange(n) + 0.5) / n * (high - low) for low, high in zip(floor.low, floor.high, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, floor.dim)
    return x[floor.contains(x)], math.prod(np.subtract(floor.high, floor.low)) / n**floor.dim


def mass(estimate):
    return (estimate.values * estimate.weights).sum()


def images(points, x, deviation):
    """The reflecting heat kernel on [-1, 1]: a normal density at x and all its mirror images."""
    return sum(norm.pdf(points, 4 * k + s * x + 1 - s, deviation) for k in (-2, -1, 0, 1, 2) for s in (-1, 1))


# --- mass ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [None, 0.05, 0.4])
@on_every_floor
def test_integrates_to_one(floor, bandwidth):
    estimate = KernelDensity(uniform(floor, 300), floor, bandwidth)
    assert mass(estimate) == pytest.approx(1, abs=1e-12)
    assert estimate.weights.sum() == pytest.approx(floor.free_area, rel=1e-9)
    points, volume = lattice(floor, 20_000 if floor.dim == 1 else 300)
    assert estimate.density(points).sum() * volume == pytest.approx(1, abs=0.01)


def test_integrates_to_one_next_to_walls():
    rng = np.random.default_rng(1)
    along = rng.uniform(0.1, 0.3, 50)
    x = np.concatenate(
        [
            np.stack([np.full(50, 0.05), along], axis=1),  # on a face
            np.stack([np.full(50, -0.05 - 1e-9), -along], axis=1),
            np.stack([np.ones(50), along], axis=1),  # on the border
            [[1.0, 1.0], [-1.0, 1.0], [0.05, 0.05], [-0.05, -0.375], [0.05, 0.625]],  # corners of rooms and of doors
        ]
    )
    for bandwidth in (None, 0.03, 0.2):
        estimate = KernelDensity(x, ROOMS, bandwidth)
        assert mass(estimate) == pytest.approx(1, abs=1e-12)
        points, volume = lattice(ROOMS, 400)
        assert estimate.density(points).sum() * volume == pytest.approx(1, abs=0.01)
        assert estimate.density(x).min() > 0


@pytest.mark.parametrize("dim", [1, 2])
def test_integrates_to_one_without_a_floor(dim):
    estimate = KernelDensity(3 + 2 * np.random.default_rng(0).normal(size=(200, dim)))
    assert mass(estimate) == pytest.approx(1, abs=1e-12)
    low, high = zip(*((line[0], line[-1]) for line in estimate.nodes), strict=True)
    points, volume = lattice(FloorPlan(low, high), 5000 if dim == 1 else 300)
    assert estimate.density(points).sum() * volume == pytest.approx(1, abs=0.001)


# --- walls and borders -----------------------------------------------------------------------------------------------


@on_every_floor
def test_zero_inside_walls_and_outside(floor):
    estimate = KernelDensity(uniform(floor, 100), floor)
    corners = np.array(floor.walls).reshape(-1, 2, floor.dim)
    inside = np.clip(corners, floor.low, floor.high).mean(axis=1)
    outside = np.array([np.subtract(floor.low, 1e-6), np.add(floor.high, 1.0)])
    points = np.concatenate([inside, outside])
    assert (estimate.density(points) == 0).all()
    assert (estimate.log_density(points) == -np.inf).all()
    fine = uniform(floor, 500, seed=1)
    np.testing.assert_allclose(np.exp(estimate.log_density(fine)), estimate.density(fine), rtol=1e-12)


def test_nothing_straight_behind_a_wall():
    rng = np.random.default_rng(2)
    x = np.stack([rng.uniform(-0.1, -0.05, 200), rng.uniform(-0.95, -0.85, 200)], axis=1)
    estimate = KernelDensity(x, ROOMS, 0.1)
    behind = np.stack([np.linspace(0.05, 1, 50), np.full(50, -0.9)], axis=1)
    assert estimate.density(behind).max() == 0
    assert estimate.density(behind * [-1, 1]).max() > 10


def test_mass_goes_through_an_open_door():
    estimate = KernelDensity(np.full((50, 2), [-0.06, -0.5]), ROOMS, 0.1)
    beyond = estimate.density(np.array([[0.06, -0.5], [0.06, -0.25]]))
    assert beyond[0] > 5
    assert beyond[1] < 0.2 * estimate.density(np.array([[-0.06, -0.25]]))[0]


@pytest.mark.parametrize(
    ("floor", "split"),
    [
        (CUT_LINE, 1.1),
        (SHUT_ROOMS, 0.0),
        (FloorPlan((0.0, 0.0), (1.0, 1.0), (((0.3, -1.0), (0.300001, 2.0)),)), 0.3000005),  # thinner than any cell
        (FloorPlan((0.0, 0.0), (1.0, 1.0), (((0.0, 0.5), (0.4, 1.0)), ((0.4, 0.0), (1.0, 0.5)))), 0.4),  # at a corner
    ],
    ids=["line", "shut rooms", "thin wall", "walls that touch at a corner"],
)
def test_no_leak_between_parts_without_a_door(floor, split):
    x = uniform(floor, 400)
    here = x[x[:, 0] < split]
    estimate = KernelDensity(here, floor, 0.2)
    assert (estimate.density(x[x[:, 0] > split]) == 0).all()
    assert mass(estimate) == pytest.approx(1, abs=1e-12)
    assert (estimate.density(here) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_leak_on_random_floors(seed):
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(0, 40, (40, 2)), rng.integers(1, 14, (40, 2))
    floor = FloorPlan((0.0, 0.0), (40.0, 40.0), tuple(zip(map(tuple, corner), map(tuple, corner + size), strict=True)))
    parts, count = label(floor.free_fraction((40, 40)) == 1)
    x = uniform(floor, 300, seed)
    part = parts[tuple(x.T.astype(int))]
    assert count > 1
    for k in np.unique(part):
        estimate = KernelDensity(x[part == k], floor, 4.0)
        assert mass(estimate) == pytest.approx(1, abs=1e-12)
        assert (estimate.density(x[part != k]) == 0).all()


@pytest.mark.parametrize(("floor", "n"), [(LINE, 5000), (CUT_LINE, 6000), (ROOMS, 400), (SHUT_ROOMS, 400)])
def test_uniform_crowd_is_flat_up_to_the_walls(floor, n):
    x, _ = lattice(floor, n)
    for bandwidth in (0.06, 0.3):
        estimate = KernelDensity(x, floor, bandwidth)
        np.testing.assert_allclose(estimate.density(x[::7]), 1 / floor.free_area, rtol=2e-3)
        corners = np.array([floor.low, floor.high])
        np.testing.assert_allclose(estimate.density(corners), 1 / floor.free_area, rtol=2e-3)


def test_is_the_reflecting_heat_kernel_on_a_line():
    points = np.linspace(-1, 1, 401)
    for x in (-0.95, -1.0, 0.123):  # one sample alone sees the mesh most
        p = KernelDensity(np.array([[x]]), LINE, 0.1).density(points[:, None])
        exact = images(points, x, 0.1)
        assert abs(p - exact).max() < 0.1 * exact.max()
        assert abs(p - exact).mean() * 2 < 0.05
    x = uniform(LINE, 200)
    p, exact = KernelDensity(x, LINE, 0.1).density(points[:, None]), images(points[:, None], x.T, 0.1).mean(axis=1)
    assert abs(p - exact).max() < 0.02 * exact.max()


def test_bandwidth_is_the_standard_deviation_of_the_kernel():
    points, volume = lattice(LINE, 20_000)
    spread = []
    for x in np.linspace(-0.05, 0.05, 41):
        p = KernelDensity(np.array([[x]]), LINE, 0.1).density(points)
        assert (points[:, 0] * p).sum() * volume == pytest.approx(x, abs=1e-9)
        spread.append((((points[:, 0] - x) ** 2) * p).sum() * volume)
    assert np.mean(spread) == pytest.approx(0.1**2, rel=0.01)
    np.testing.assert_allclose(spread, 0.1**2, rtol=0.06)


def test_is_isotropic_in_the_open():
    points, volume = lattice(FloorPlan((-1.0, -1.0), (1.0, 1.0)), 400)
    p = KernelDensity(np.array([[0.11, -0.07]]), FloorPlan((-1.0, -1.0), (1.0, 1.0)), 0.12).density(points)
    covariance = np.cov(points.T, aweights=p * volume, ddof=0)
    np.testing.assert_allclose(covariance, 0.12**2 * np.eye(2), atol=0.06 * 0.12**2)


def test_kernel_is_symmetric():
    x = uniform(ROOMS, 30)
    table = np.stack([KernelDensity(x[i : i + 1], ROOMS, 0.3).density(x) for i in range(len(x))])
    np.testing.assert_allclose(table, table.T, atol=1e-13)


# --- leave-one-out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [None, 0.05])
@on_every_floor
def test_leave_one_out_is_the_estimate_from_the_others(floor, bandwidth):
    x = uniform(floor, 60)
    x[1], x[2] = x[0], floor.high if floor is not AWKWARD else floor.low
    estimate = KernelDensity(x, floor, bandwidth)
    brute_force = [
        KernelDensity(np.delete(x, i, axis=0), floor, estimate.bandwidth).density(x[i : i + 1])[0]
        for i in range(len(x))
    ]
    np.testing.assert_allclose(estimate.leave_one_out(), brute_force, rtol=0, atol=1e-10)


def test_leave_one_out_without_a_floor():
    x = np.random.default_rng(0).normal(size=(200, 1))
    estimate = KernelDensity(x, bandwidth=0.3)
    gauss = norm.pdf(x, x.T, 0.3)
    expected = (gauss.sum(axis=1) - gauss.diagonal()) / 199
    np.testing.assert_allclose(estimate.leave_one_out(), expected, atol=0.01 * expected.max())


def test_leave_one_out_of_few():
    assert KernelDensity(np.zeros((1, 1)), LINE).leave_one_out().tolist() == [0.0]
    far = KernelDensity(np.array([[-0.9], [0.9], [0.9]]), LINE, 0.02).leave_one_out()
    assert far.min() >= 0
    assert far[0] < 1e-9
    assert far[1] == pytest.approx(far[2])
    apart = KernelDensity(np.array([[-0.5, -0.5], [0.5, 0.5]]), SHUT_ROOMS, 0.3).leave_one_out()
    np.testing.assert_allclose(apart, 0, atol=1e-13)


# --- symmetries ------------------------------------------------------------------------------------------------------


@on_every_floor
def test_permutation_of_the_agents(floor):
    x, points = uniform(floor, 200), uniform(floor, 100, seed=1)
    order = np.random.default_rng(3).permutation(len(x))
    a, b = KernelDensity(x, floor), KernelDensity(x[order], floor)
    assert a.bandwidth == b.bandwidth
    np.testing.assert_allclose(a.leave_one_out()[order], b.leave_one_out(), rtol=1e-9)
    np.testing.assert_allclose(a.density(points), b.density(points), rtol=1e-9)


@on_every_floor
def test_translation_of_the_floor(floor):
    shift = np.array([7.3, -41.9])[: floor.dim]
    walls = tuple((tuple(lower + shift), tuple(upper + shift)) for lower, upper in floor.walls)
    moved = FloorPlan(tuple(floor.low + shift), tuple(floor.high + shift), walls)
    x, points = uniform(floor, 200), uniform(floor, 100, seed=1)
    a, b = KernelDensity(x, floor), KernelDensity(x + shift, moved)
    assert a.bandwidth == pytest.approx(b.bandwidth)
    np.testing.assert_allclose(b.density(points + shift), a.density(points), rtol=1e-7)
    np.testing.assert_allclose(b.leave_one_out(), a.leave_one_out(), rtol=1e-7)


def test_scale_without_a_floor():
    x = np.random.default_rng(0).normal(size=(300, 2))
    points = x[:50] + 0.1
    a, b = KernelDensity(x), KernelDensity(1000 * x + 5)
    assert b.bandwidth == pytest.approx(1000 * a.bandwidth)
    np.testing.assert_allclose(b.density(1000 * points + 5), 1e-6 * a.density(points), rtol=1e-6)
    np.testing.assert_allclose(b.leave_one_out(), 1e-6 * a.leave_one_out(), rtol=1e-6)


# --- accuracy and the bandwidth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "tolerance"), [(1, 0.02), (2, 0.03)])
def test_agrees_with_scipy_on_the_whole_space(dim, tolerance):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, dim))
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T).reshape(dim, dim)), x.T).T  # scipy's kernel is then a sphere
    points = 1.5 * rng.normal(size=(1000, dim))
    for bandwidth in (0.2, None):
        ours = KernelDensity(x, bandwidth=bandwidth)
        theirs = gaussian_kde(x.T, bw_method=ours.bandwidth)(points.T)
        assert abs(ours.density(points) - theirs).max() < tolerance * theirs.max()
        assert abs(ours.density(points) - theirs).mean() < tolerance / 2 * theirs.mean()


def l1_error(floor, points, volume, truth, sample, n, seeds):
    return np.mean(
        [abs(KernelDensity(sample(n, seed), floor).density(points) - truth).sum() * volume for seed in range(seeds)]
    )


def test_error_shrinks_at_the_rate_of_kernels_on_a_line():
    points, volume = lattice(LINE, 2000)
    truth = images(points[:, 0], -0.6, 0.1)

    def sample(n, seed):
        return -1 + abs(0.4 + 0.1 * np.random.default_rng(seed).normal(size=(n, 1)))

    few, many = (l1_error(LINE, points, volume, truth, sample, n, 10) for n in (300, 30_000))
    assert few < 0.13
    assert 4 < few / many < 9  # 100^(2/5) = 6.3


def test_error_shrinks_at_the_rate_of_kernels_in_the_rooms():
    points, volume = lattice(ROOMS, 200)
    truth = np.exp(-((points + 0.6) ** 2).sum(axis=1) / 2 / 0.2**2)
    truth /= truth.sum() * volume

    def sample(n, seed):
        x = -0.6 + 0.2 * np.random.default_rng(seed).normal(size=(3 * n, 2))
        return x[ROOMS.contains(x)][:n]

    few, many = (l1_error(ROOMS, points, volume, truth, sample, n, 5) for n in (300, 30_000))
    assert few < 0.21
    assert 3.2 < few / many < 6.5  # 100^(1/3) = 4.6


def test_bandwidth_override_has_an_effect():
    x = uniform(ROOMS, 300)
    rough, smooth = KernelDensity(x, ROOMS, 0.05), KernelDensity(x, ROOMS, 0.5)
    assert (rough.bandwidth, smooth.bandwidth) == (0.05, 0.5)
    points = uniform(ROOMS, 1000, seed=1)
    assert rough.density(points).std() > 3 * smooth.density(points).std()


def test_bandwidth_rule():
    rng = np.random.default_rng(5)
    n = 2000
    for x, floor, spread in [
        (-0.3 + 0.1 * rng.normal(size=(n, 1)), LINE, 0.1),
        (rng.choice([-0.6, 0.6], (n, 1)) + 0.1 * rng.normal(size=(n, 1)), LINE, 0.1),  # clusters, not their distance
        (rng.choice([-0.5, 0.5], (n, 2)) + 0.1 * rng.normal(size=(n, 2)), ROOMS, 0.1),
        (3 + 5 * rng.normal(size=(n, 1)), None, 5.0),
    ]:
        inside = x if floor is None else x[floor.contains(x)]
        d = x.shape[1]
        wanted = 1.2 * spread * len(inside) ** (-1 / (d + 4))
        assert KernelDensity(inside, floor).bandwidth == pytest.approx(wanted, rel=0.2)
    for floor in (LINE, ROOMS, AWKWARD):  # a wide crowd
        side = floor.free_area ** (1 / floor.dim)
        assert KernelDensity(uniform(floor, n), floor).bandwidth > 0.2 * side * n ** (-1 / (floor.dim + 4))
    exponent = 8 * math.log2(KernelDensity(uniform(ROOMS, n), ROOMS).bandwidth)
    assert exponent == pytest.approx(round(exponent), abs=1e-9)


def test_coinciding_agents_get_the_finest_bandwidth():
    estimate = KernelDensity(np.full((10, 2), 0.5), ROOMS)
    assert estimate.bandwidth == pytest.approx(2 / 96, rel=0.05)
    assert mass(estimate) == pytest.approx(1, abs=1e-12)
    assert KernelDensity(np.full((10, 2), 0.5), ROOMS, estimate.bandwidth).bandwidth == estimate.bandwidth


def test_grid_values_are_the_density_at_the_centres():
    estimate = KernelDensity(np.array([[-0.7, -0.4], [0.8, -0.4]]), ROOMS, 0.1)
    picture = estimate.grid_values((40, 20))
    assert picture.shape == (40, 20)
    assert picture.sum() * 0.05 * 0.1 == pytest.approx(1, abs=0.01)
    assert picture[6, 6] == estimate.density(np.array([[-1 + 6.5 * 0.05, -1 + 6.5 * 0.1]]))[0] > 0
    assert picture[20, 2] == 0  # a wall


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "floor", "bandwidth", "message"),
    [
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), ROOMS, None, "x .*sample 1"),
        (np.array([[np.inf]]), None, None, "x .*sample 0"),
        (np.array([[0.5, 0.5], [0.5, 1.001]]), ROOMS, None, "x .*sample 1"),
        (np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]), ROOMS, None, "x .*sample 2"),
        (np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]), ROOMS, 0.1, "x .*sample 2"),
        (np.zeros(3), LINE, None, "x must have shape"),
        (np.zeros((3, 1)), ROOMS, None, "x must have shape"),
        (np.zeros((0, 1)), LINE, None, "x must have shape"),
        (np.zeros((3, 3)), None, None, "x must have shape"),
        (np.zeros((3, 3)), FloorPlan((-1.0,) * 3, (1.0,) * 3), None, "floor"),
        (np.zeros((3, 1)), None, None, "bandwidth"),
        (np.zeros((3, 1)), LINE, 0.0, "bandwidth"),
        (np.zeros((3, 1)), LINE, -0.1, "bandwidth"),
        (np.zeros((3, 1)), LINE, math.nan, "bandwidth"),
        (np.zeros((3, 1)), LINE, math.inf, "bandwidth"),
        (np.zeros((3, 1)), LINE, "wide", "bandwidth"),
        (np.zeros((3, 1)), LINE, 1e-4, "bandwidth must be at least"),
        (np.array([[0.0], [1.0]]), None, 1e-4, "bandwidth must be at least"),
    ],
)
def test_bad_input(x, floor, bandwidth, message):
    with pytest.raises(ValueError, match=message):
        KernelDensity(x, floor, bandwidth)


def test_bad_points():
    estimate = KernelDensity(uniform(ROOMS, 10), ROOMS)
    for points in (np.zeros((3, 1)), np.zeros(2), np.array([[np.nan, 0.0]])):
        with pytest.raises(ValueError, match="points"):
            estimate.density(points)
    assert estimate.density(np.zeros((0, 2))).shape == (0,)


# --- one more agent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [1, 3, 40, 2000])
@on_every_floor
def test_what_one_more_agent_meets_is_its_leave_one_out_density(floor, others):
    """Crowds of several widths, so that points have several bandwidths and crowds share some."""
    rng = np.random.default_rng(others)
    everyone = uniform(floor, 3 * others, seed=others).reshape(3, others, -1)
    everyone[1] = everyone[1, :1]  # all in one place
    points = np.stack([uniform(floor, 6, seed=seed) for seed in rng.integers(1000, size=3)])
    met = density_met(everyone, points, floor)
    for crowd, x, row in zip(everyone, points, met, strict=True):
        wanted = [KernelDensity(np.vstack([crowd, one]), floor).leave_one_out()[-1] for one in x]
        np.testing.assert_allclose(row, wanted, rtol=1e-9, atol=1e-10)


def test_one_more_agent_must_be_on_the_floor_and_so_must_the_others():
    inside, wall = np.full((1, 4, 2), 0.5), np.zeros((1, 1, 2))
    for others, points in ((inside, wall), (wall, inside), (inside, inside + 1)):
        with pytest.raises(ValueError, match="states must be on the floor"):
            density_met(others, points, ROOMS)


def test_one_more_agent_needs_others_of_its_own_kind():
    x = np.full((2, 4, 2), 0.5)
    for others, points in ((x[0], x), (x, x[0]), (x, x[:1]), (x, x[:, :0]), (x[:, :0], x), (x[..., :1], x[..., :1])):
        with pytest.raises(ValueError, match="must have shape"):
            density_met(others, points, ROOMS)
    for others, points in ((x, x * np.nan), (x * np.inf, x)):
        with pytest.raises(ValueError, match="must be finite"):
            density_met(others, points, ROOMS)
