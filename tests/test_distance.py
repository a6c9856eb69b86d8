"""The Wasserstein-1 distance against closed forms: shifts, scales, points, rates."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from mfg_envs.games.floor_plan import FloorPlan, cross_of_rooms
from mfg_envs.mean_field import Empirical, Gaussian, Grid, MeanField, wasserstein
from mfg_envs.mean_field.grid import Mesh

rng_of = np.random.default_rng
LINE = FloorPlan((-1.0,), (1.0,))


def normal(mean, covariance):
    return Gaussian(np.atleast_2d(mean), np.atleast_2d(covariance)[None]).at(0)


def law_on(floor, cells, seed=0):
    """Random masses, some of them zero."""
    mesh = Mesh(floor, cells)
    mass = np.maximum(rng_of(seed).normal(size=len(mesh)), 0)
    return Grid(mesh, mass[None] / mass.sum()).at(0)


def quantiles(mean, std, n=100_000):
    return stats.norm.ppf((np.arange(n) + 0.5) / n, mean, std)[:, None]


def test_samples_against_samples_as_scipy_has_it():
    x, y = rng_of(0).normal(size=(50, 1)), rng_of(1).exponential(size=(70, 1))
    assert wasserstein(x, y) == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)
    assert wasserstein(x, Empirical(y)) == wasserstein(x, y)


@pytest.mark.parametrize("seed", range(3))
def test_a_gaussian_is_the_integral_of_the_difference_of_distribution_functions(seed):
    x = rng_of(seed).normal(0.3, 2, size=(7, 1))
    points = np.sort(x[:, 0])
    pieces = [-20, *points, 20]
    exact = sum(
        integrate.quad(lambda s, k=k: abs(k / 7 - stats.norm.cdf(s, 1, 0.5)), pieces[k], pieces[k + 1], limit=200)[0]
        for k in range(8)
    )
    assert wasserstein(x, normal([1.0], [[0.25]])) == pytest.approx(exact, abs=1e-7)


def test_two_gaussians():
    """Of N(m, s^2) and N(m', s'^2): E |m - m' + (s - s') Z|."""
    for mean, std in ((2.0, 1.0), (0.0, 3.0), (0.5, 1.2)):
        spread = abs(std - 1)
        folded = abs(mean) if spread == 0 else stats.foldnorm.mean(abs(mean) / spread, scale=spread)
        assert wasserstein(quantiles(0, 1), normal([mean], [[std**2]])) == pytest.approx(folded, abs=1e-4)


def test_point_masses():
    assert wasserstein(np.array([[3.0]]), np.array([[-1.0]])) == 4
    assert wasserstein(np.array([[3.0], [5.0]]), normal([1.0], [[0.0]])) == 3
    # a point and a normal law: the mean absolute deviation
    assert wasserstein(np.zeros((1, 1)), normal([0.0], [[4.0]])) == pytest.approx(2 * math.sqrt(2 / math.pi))
    # a point and the uniform law on [-1, 1]
    uniform = Grid(Mesh(LINE, 10), np.full((1, 10), 0.1)).at(0)
    assert wasserstein(np.zeros((1, 1)), uniform) == pytest.approx(0.5)
    assert wasserstein(np.full((1, 1), -3.0), uniform) == pytest.approx(3)
    assert wasserstein(np.full((1, 1), 1.0), uniform) == pytest.approx(1)


@pytest.mark.parametrize("floor", [LINE, FloorPlan((0.0,), (3.0,), (((1.0,), (1.2,)),))])
def test_on_the_line_a_cells_mass_is_spread_over_it(floor):
    mu = law_on(floor, 20)
    x = rng_of(1).uniform(floor.low[0] - 0.5, floor.high[0] + 0.5, size=(30, 1))
    within = (np.arange(2000) + 0.5) / 2000 - 0.5
    y = (mu.mesh.centres + within * mu.mesh.widths).ravel()
    exact = stats.wasserstein_distance(x[:, 0], y, None, np.repeat(mu.mass, 2000))
    assert wasserstein(x, mu) == pytest.approx(exact, abs=1e-6)


def test_a_shift_in_the_plane():
    x = rng_of(0).normal(size=(1000, 2))
    for shift in ([1.0, 0.0], [0.3, -2.0]):
        assert wasserstein(x + shift, x) == pytest.approx(2 / math.pi * np.linalg.norm(shift), rel=2e-3)
        exact = np.mean(np.abs(np.cos((np.arange(5) + 0.5) * np.pi / 5 - np.arctan2(*shift[::-1]))))
        assert wasserstein(x + shift, x, directions=5) == pytest.approx(exact * np.linalg.norm(shift), rel=1e-9)


def test_in_the_plane_a_gaussian_is_projected_exactly():
    """Against N(0, I), every projection of N(m, C) is a normal law on the line."""
    x, covariance = rng_of(0).normal(size=(20, 2)), np.array([[2.0, 0.5], [0.5, 1.0]])
    angles = (np.arange(32) + 0.5) * np.pi / 32
    lines = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    exact = np.mean([wasserstein((x @ u)[:, None], normal([u @ [1.0, 2.0]], [[u @ covariance @ u]])) for u in lines])
    assert wasserstein(x, normal([1.0, 2.0], covariance)) == pytest.approx(exact, rel=1e-12)


def test_in_the_plane_a_cells_mass_is_in_its_centre():
    mu = law_on(cross_of_rooms(), 12)
    counts = rng_of(0).integers(1, 4, size=len(mu.mass))
    mu = Grid(mu.mesh, counts[None] / counts.sum()).at(0)
    y, x = np.repeat(mu.mesh.centres, counts, axis=0), rng_of(1).normal(size=(30, 2))
    assert wasserstein(x, mu) == pytest.approx(wasserstein(x, y), rel=1e-12)
    assert wasserstein(y, mu) == pytest.approx(0, abs=1e-12)


def test_scales_and_shifts_with_the_line_and_is_symmetric():
    x, y = rng_of(0).normal(size=(40, 2)), rng_of(1).normal(1, 2, size=(60, 2))
    distance = wasserstein(x, y)
    assert distance == pytest.approx(wasserstein(y, x), rel=1e-12)
    assert wasserstein(3 * x + 1, 3 * y + 1) == pytest.approx(3 * distance, rel=1e-10)
    assert wasserstein(x[::-1], y) == pytest.approx(distance, rel=1e-12)
    assert wasserstein(x, x) == pytest.approx(0, abs=1e-12)
    z = rng_of(2).normal(size=(50, 2))
    assert distance <= wasserstein(x, z) + wasserstein(z, y)


def test_several_crowds_at_once():
    x = rng_of(0).normal(size=(2, 3, 40, 2))
    for mu in (normal([0.0, 1.0], np.eye(2)), law_on(cross_of_rooms(), 12), rng_of(1).normal(size=(9, 2))):
        distances = wasserstein(x, mu)
        assert distances.shape == (2, 3)
        assert distances[1, 2] == pytest.approx(wasserstein(x[1, 2], mu), rel=1e-12)


def test_independent_draws_come_closer_like_one_over_the_root():
    """E W1 is near the integral of sqrt(2/pi F (1 - F) / N), from N = 30 on."""
    s = np.linspace(-8, 8, 4001)
    F = stats.norm.cdf(s)
    limit = integrate.trapezoid(np.sqrt(2 / np.pi * F * (1 - F)), s)
    for n in (30, 1000):
        distances = wasserstein(rng_of(n).normal(size=(2000, n, 1)), normal([0.0], [[1.0]]))
        assert distances.mean() * math.sqrt(n) == pytest.approx(limit, rel=0.03)


def test_draws_from_a_grid_are_of_its_law():
    for floor, least in ((LINE, 0.0), (cross_of_rooms(), 1e-3)):  # in the plane, the centres are not quite the law
        mu = law_on(floor, 40)
        few, many = (wasserstein(mu.sample(n, rng_of(n)), mu) for n in (1000, 100_000))
        assert many < few / 5 + least


def test_bad_input():
    x, mu = np.zeros((5, 2)), normal([0.0, 0.0], np.eye(2))
    for wrong in (np.zeros(5), np.zeros((5, 3)), np.zeros((0, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(ValueError, match="x must be finite numbers of shape"):
            wasserstein(wrong, mu)
    for directions in (0, 1.5, True):
        with pytest.raises(ValueError, match="directions must be a positive integer"):
            wasserstein(x, mu, directions)

    class Other:
        def sample(self, n, rng):
            return np.zeros((n, 2))

    wrong_dimension = normal([0.0], [[1.0]]), law_on(LINE, 8), np.zeros((4, 1))
    for wrong in (*wrong_dimension, np.zeros((0, 2)), np.full((3, 2), np.inf), Other(), MeanField, None):
        with pytest.raises(ValueError, match="mu must be a Gaussian, a law on a grid, an empirical law"):
            wasserstein(x, wrong)
