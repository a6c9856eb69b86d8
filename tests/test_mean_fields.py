"""Crowds as distributions: densities integrate to one, samples follow them, means are theirs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from mfg_envs import mean_field
from mfg_envs.mean_field import Empirical, Flow, Gaussian, MeanField
from mfg_envs.policies import AveragePolicy

T = 3
rng_of = np.random.default_rng


def gaussian():
    means = rng_of(0).normal(size=(T + 1, 2))
    roots = rng_of(1).normal(size=(T + 1, 2, 2))
    return Gaussian(means, roots @ roots.transpose(0, 2, 1), rng_of(2).normal(size=(T, 3)))


def empirical():
    return Empirical.from_trajectories(rng_of(0).normal(size=(T + 1, 50, 2)), rng_of(1).normal(size=(T, 50, 3)))


def crooked_flow(dim=2, seed=0):
    """A flow with parameters drawn at random: any parameters make a density."""
    torch.manual_seed(seed)
    flow = Flow(dim, T, action_dim=3, hidden=(16,))
    flow.standardise(rng_of(0).normal(0.5, 1.5, size=(T + 1, 50, dim)), rng_of(1).normal(size=(T, 50, 3)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.25 * torch.randn_like(parameter))
    return flow.eval()


WEIGHTS = np.array([0.2, 0.4, 0.6, 0.8])  # of the right one of two bumps, by t


def two_bumps_density(t, x):
    """w_t N(2, 0.5^2) + (1 - w_t) N(-1 - t, 0.3^2)."""
    return WEIGHTS[t] * stats.norm.pdf(x, 2, 0.5) + (1 - WEIGHTS[t]) * stats.norm.pdf(x, -1 - t, 0.3)


@pytest.fixture(scope="module")
def trained():
    """A flow in one dimension, trained for a moment on two bumps that move and change weight with t."""
    torch.manual_seed(0)
    rng, n = rng_of(0), 4000
    steps = np.arange(T + 1)[:, None]
    right = rng.random((T + 1, n)) < WEIGHTS[:, None]
    x = np.where(right, rng.normal(2, 0.5, (T + 1, n)), rng.normal(-1 - steps, 0.3, (T + 1, n)))[..., None]
    flow = Flow(1, T, hidden=(32, 32))
    flow.standardise(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=200)
    paths = torch.as_tensor(x, dtype=torch.float32)
    flow.train()
    for _ in range(200):
        t, i = torch.randint(T + 1, (1024,)), torch.randint(n, (1024,))
        loss = -flow.log_prob(t, paths[t, i]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return flow.eval()


KINDS = {"gaussian": gaussian, "empirical": empirical, "flow": crooked_flow}
all_kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
with_density = pytest.mark.parametrize("make", [gaussian, crooked_flow], ids=["gaussian", "flow"])
all_times = pytest.mark.parametrize("t", range(T + 1))


def line(flow, t, points=4001):
    """A fine grid over all of mu_t's mass, and the density there."""
    centre, scale = flow.location[t].item(), flow.scale[t].item()
    x = np.linspace(centre - 9 * scale, centre + 9 * scale, points)
    return x, np.exp(flow.at(t).log_density(x[:, None]))


# --- what every mean field does ------------------------------------------------------------------------------------


@all_kinds
@pytest.mark.parametrize("t", [-1, T + 1, 0.5, 10**6])
def test_there_is_no_other_time(make, t):
    with pytest.raises(ValueError, match=f"0, ..., {T}"):
        make().at(t)


@all_kinds
def test_shapes_and_types(make):
    mu = make()
    assert isinstance(mu, MeanField)
    assert mu.horizon == T
    for t in (*range(T + 1), np.int64(1)):
        assert mu.at(t).mean.shape == (2,)
        assert mu.at(t).mean.dtype == np.float64
        sample = mu.at(t).sample(5, rng_of(0))
        assert sample.shape == (5, 2)
        assert sample.dtype == np.float64
        if t < T:
            assert mu.at(t).mean_action.shape == (3,)
            assert mu.at(t).mean_action.dtype == np.float64
    with pytest.raises(ValueError, match="mean action"):
        mu.at(T).mean_action  # noqa: B018


@all_kinds
def test_samples_depend_on_the_generator_alone(make):
    mu = make()
    draws = [mu.at(1).sample(6, rng_of(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    rng = rng_of(3)
    assert not np.array_equal(mu.at(1).sample(6, rng), mu.at(1).sample(6, rng))


@all_kinds
def test_mean_is_the_mean_of_samples(make):
    mu = make()
    for t in range(T + 1):
        x = mu.at(t).sample(20_000, rng_of(t))
        np.testing.assert_array_less(np.abs(x.mean(axis=0) - mu.at(t).mean), 4 * x.std(axis=0) / np.sqrt(len(x)))


@all_kinds
def test_sample_path_is_the_samples_of_each_time(make):
    mu, rng = make(), rng_of(5)
    one_by_one = np.stack([mu.at(t).sample(7, rng) for t in range(T + 1)])
    np.testing.assert_allclose(mu.sample_path(7, rng_of(5)), one_by_one, rtol=1e-5, atol=1e-5)
    assert mu.sample_path(7, rng_of(5)).dtype == np.float64


@with_density
def test_log_density_path_is_the_density_of_each_time(make):
    mu = make()
    x = mu.sample_path(7, rng_of(0))
    one_by_one = np.stack([mu.at(t).log_density(x[t]) for t in range(T + 1)])
    np.testing.assert_allclose(mu.log_density_path(x), one_by_one, rtol=1e-5, atol=1e-5)
    assert mu.log_density_path(x).shape == (T + 1, 7)
    assert mu.log_density_path(x).dtype == np.float64
    for wrong in (x[:-1], x[0], x[..., 0]):
        with pytest.raises(ValueError, match="x must have shape"):
            mu.log_density_path(wrong)


@with_density
def test_log_density_answers_in_the_library_of_x(make):
    mu, x = make(), rng_of(0).normal(size=(9, 2))
    of_numpy = mu.at(2).log_density(x)
    assert isinstance(of_numpy, np.ndarray)
    assert of_numpy.dtype == np.float64
    assert of_numpy.shape == (9,)
    for dtype in (torch.float64, torch.float32):
        of_torch = mu.at(2).log_density(torch.as_tensor(x, dtype=dtype))
        assert of_torch.dtype == dtype
        np.testing.assert_allclose(of_torch.detach().numpy(), of_numpy, rtol=1e-3, atol=1e-4)


@with_density
def test_log_density_is_differentiable(make):
    """In x, against central differences; a flow computes in float32, so the steps are wide."""
    mu = make()
    x = torch.as_tensor(mu.at(1).sample(6, rng_of(0))).requires_grad_()
    (gradient,) = torch.autograd.grad(mu.at(1).log_density(x).sum(), x)
    h, log_density = 3e-4, mu.at(1).log_density
    for i in range(2):
        e = h * np.eye(2)[i]
        difference = (log_density(x.detach().numpy() + e) - log_density(x.detach().numpy() - e)) / (2 * h)
        np.testing.assert_allclose(gradient[:, i].numpy(), difference, rtol=0.03, atol=0.02)


def test_flow_is_found_where_it_is_looked_for():
    assert mean_field.Flow is Flow
    with pytest.raises(AttributeError, match="Fluss"):
        mean_field.Fluss  # noqa: B018


# --- empirical -----------------------------------------------------------------------------------------------------


def test_empirical_means_count_everyone():
    x, a = np.array([[0.0, 1.0], [2.0, 5.0], [7.0, 0.0]]), np.array([[1.0], [2.0], [6.0]])
    mu = Empirical(x, a)
    np.testing.assert_allclose(mu.mean, [3.0, 2.0])
    np.testing.assert_allclose(mu.mean_action, [3.0])
    with pytest.raises(ValueError, match="mean action"):
        Empirical(x).mean_action  # noqa: B018
    assert Empirical([[1], [2]]).mean.dtype == np.float64  # of integers, too


def test_empirical_samples_are_the_agents():
    """Each of N agents is drawn with probability 1/N, with replacement."""
    x = np.arange(5.0)[:, None]
    draws = Empirical(x).sample(10_000, rng_of(0))
    assert stats.chisquare(np.bincount(draws[:, 0].astype(int), minlength=5)).pvalue > 0.01
    assert len(np.unique(Empirical(x).sample(5, rng_of(0)))) < 5


def test_empirical_flow_is_its_trajectories():
    x, a = rng_of(0).normal(size=(T + 1, 6, 2)), rng_of(1).normal(size=(T, 6, 3))
    mu = Empirical.from_trajectories(x, a)
    for t in range(T + 1):
        np.testing.assert_allclose(mu.at(t).mean, x[t].mean(axis=0))
        if t < T:
            np.testing.assert_allclose(mu.at(t).mean_action, a[t].mean(axis=0))
    with pytest.raises(ValueError, match="mean action"):
        Empirical.from_trajectories(x).at(0).mean_action  # noqa: B018


@pytest.mark.parametrize(
    ("x", "a", "named"),
    [
        ((3,), None, "x"),
        ((0, 2), None, "x"),
        ((3, 2, 1), None, "x"),
        ((3, 2), (2, 1), "a"),
        ((3, 2), (3,), "a"),
    ],
)
def test_empirical_shapes(x, a, named):
    with pytest.raises(ValueError, match=f"^{named} must have shape"):
        Empirical(np.zeros(x), None if a is None else np.zeros(a))


@pytest.mark.parametrize(
    ("x", "a", "named"),
    [
        ((4, 3), None, "x"),
        ((4, 0, 2), None, "x"),
        ((4, 3, 2), (4, 3, 1), "a"),
        ((4, 3, 2), (3, 2, 1), "a"),
        ((4, 3, 2), (3, 3), "a"),
    ],
)
def test_empirical_flow_shapes(x, a, named):
    with pytest.raises(ValueError, match=f"^{named} must have shape"):
        Empirical.from_trajectories(np.zeros(x), None if a is None else np.zeros(a))


# --- Gaussian ------------------------------------------------------------------------------------------------------


@all_times
def test_gaussian_density(t):
    mu = gaussian()
    x = rng_of(4).normal(0, 3, size=(20, 2))
    expected = stats.multivariate_normal(mu.means[t], mu.covariances[t]).logpdf(x)
    np.testing.assert_allclose(mu.at(t).log_density(x), expected, rtol=1e-10)


def test_gaussian_samples():
    """Covariances of n samples are within 5 / sqrt(n) of theirs, relatively."""
    mu = gaussian()
    for t in range(T + 1):
        x = mu.at(t).sample(40_000, rng_of(0))
        np.testing.assert_allclose(np.cov(x.T), mu.covariances[t], atol=5 * mu.covariances[t].max() / 200)
        assert stats.kstest(x[:, 0], stats.norm(mu.means[t, 0], np.sqrt(mu.covariances[t, 0, 0])).cdf).pvalue > 0.01


@pytest.mark.parametrize("covariance", [np.zeros((2, 2)), np.ones((2, 2))], ids=["a point", "a line"])
def test_singular_gaussians_have_samples_but_no_density(covariance):
    mu = Gaussian(np.ones((1, 2)), covariance[None])
    x = mu.at(0).sample(1000, rng_of(0))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.15)
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-7)
    with pytest.raises(ValueError, match="singular"):
        mu.at(0).log_density(x)


@pytest.mark.parametrize(
    ("means", "covariances", "actions", "named"),
    [
        ((4,), (4, 1, 1), None, "means"),
        ((4, 2), (4, 1, 1), None, "covariances"),
        ((4, 2), (3, 2, 2), None, "covariances"),
        ((4, 1), (4,), None, "covariances"),
        ((4, 1), (4, 1, 1), (4, 1), "mean_actions"),
        ((4, 1), (4, 1, 1), (3,), "mean_actions"),
    ],
)
def test_gaussian_shapes(means, covariances, actions, named):
    with pytest.raises(ValueError, match=f"^{named} must have shape"):
        Gaussian(np.zeros(means), np.zeros(covariances), None if actions is None else np.zeros(actions))


# --- flows ---------------------------------------------------------------------------------------------------------


@all_times
def test_an_untrained_flow_is_the_gaussian_of_its_standardisation(t):
    x = rng_of(0).normal([1.0, -2.0], [0.5, 3.0], size=(T + 1, 500, 2)) + np.arange(T + 1)[:, None, None]
    flow = Flow(2, T)
    flow.standardise(x)
    points = x[t, :50]
    expected = stats.norm(x[t].mean(axis=0), x[t].std(axis=0)).logpdf(points).sum(axis=1)
    np.testing.assert_allclose(flow.at(t).log_density(points), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(flow.at(t).mean, x[t].mean(axis=0), atol=1e-3 * x[t].std())
    samples = flow.at(t).sample(4000, rng_of(1))
    for i in range(2):
        assert stats.kstest(samples[:, i], stats.norm(x[t, :, i].mean(), x[t, :, i].std()).cdf).pvalue > 0.01


def test_a_fresh_flow_is_standard_normal():
    x = rng_of(0).normal(size=(20, 1))
    np.testing.assert_allclose(Flow(1, 2).at(0).log_density(x), stats.norm.logpdf(x[:, 0]), rtol=1e-5, atol=1e-6)


@all_times
def test_a_trained_flow_has_learnt_its_law(trained, t):
    """It integrates to one, and its total variation distance to the truth is small: the Gaussian's is above 0.25."""
    x, density = line(trained, t)
    assert np.trapezoid(density, x) == pytest.approx(1, abs=2e-3)
    truth = two_bumps_density(t, x)
    assert 0.5 * np.trapezoid(np.abs(density - truth), x) < 0.1
    normal = stats.norm.pdf(x, trained.location[t].item(), trained.scale[t].item())
    assert 0.5 * np.trapezoid(np.abs(normal - truth), x) > 0.25


@all_times
def test_samples_of_a_trained_flow_follow_its_density(trained, t):
    """Kolmogorov-Smirnov against the integral of exp(log_density)."""
    x, density = line(trained, t)
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    samples = trained.at(t).sample(4000, rng_of(7))[:, 0]
    assert stats.kstest(samples, lambda v: np.interp(v, x, cdf / cdf[-1])).pvalue > 0.01


def test_means_of_a_trained_flow_track_t(trained):
    """Against the first moment of its density, and against 2 w_t + (1 - w_t)(-1 - t)."""
    moments = [np.trapezoid(x * density, x) for x, density in (line(trained, t) for t in range(T + 1))]
    np.testing.assert_allclose(trained.means[:, 0], moments, atol=5e-3)
    steps = np.arange(T + 1)
    np.testing.assert_allclose(trained.means[:, 0], 2 * WEIGHTS - (1 - WEIGHTS) * (1 + steps), atol=0.15)


@pytest.mark.parametrize("t", [0, T])
def test_a_flow_in_the_plane_integrates_to_one_and_is_sampled(t):
    """Mass on a grid, and a chi-square test of samples against the masses of 5 x 5 coarse cells."""
    flow, points, cells = crooked_flow(), 800, 5
    low, high = (flow.location[t] + side * 8 * flow.scale[t] for side in (-1, 1))
    edges = [np.linspace(low[i].item(), high[i].item(), points + 1) for i in range(2)]
    grid = np.stack(np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij"), axis=-1)
    area = np.prod([e[1] - e[0] for e in edges])
    mass = np.exp(flow.at(t).log_density(grid.reshape(-1, 2))).reshape(points, points) * area
    assert mass.sum() == pytest.approx(1, abs=5e-3)
    x = flow.at(t).sample(20_000, rng_of(0))
    cuts = [np.searchsorted(np.cumsum(mass.sum(axis=1 - i)), np.arange(1, cells) / cells) for i in range(2)]
    expected = np.add.reduceat(np.add.reduceat(mass, [0, *cuts[0]], axis=0), [0, *cuts[1]], axis=1)
    counts = np.histogram2d(*x.T, bins=[[-np.inf, *e[c], np.inf] for e, c in zip(edges, cuts, strict=True)])[0]
    assert stats.chisquare(counts.ravel(), (expected / expected.sum() * len(x)).ravel()).pvalue > 0.001
    np.testing.assert_allclose((grid * mass[..., None]).sum(axis=(0, 1)), flow.at(t).mean, atol=0.02)


def test_push_and_log_prob_are_each_others_change_of_variables():
    """log mu(push(z)) = log phi(z) - log |det d push / dz|."""
    flow, z = crooked_flow(), torch.randn(8, 2)
    for t in range(T + 1):
        steps = torch.full((8,), t)
        x = flow.push(steps, z)
        jacobians = torch.stack(
            [torch.func.jacrev(lambda v, t=t: flow.push(torch.tensor([t]), v[None])[0])(v) for v in z]
        )
        expected = torch.distributions.Normal(0, 1).log_prob(z).sum(dim=1) - jacobians.det().abs().log()
        torch.testing.assert_close(flow.log_prob(steps, x), expected, rtol=1e-3, atol=2e-3)


def test_waves_show_a_coupling_where_the_walls_are():
    """A crowd whose second coordinate is where a stripe of the first says: with waves it is learnt sooner."""
    x = rng_of(0).uniform(-1, 1, (1, 4000, 2))
    x[..., 1] = (x[..., 1] + np.sign(np.sin(2 * np.pi * x[..., 0]))) / 2

    def loss(waves):
        torch.manual_seed(0)
        flow, points = Flow(2, 0, hidden=(32,), waves=waves), torch.as_tensor(x[0], dtype=torch.float32)
        flow.standardise(x)
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        for _ in range(200):
            loss = -flow.log_prob(torch.zeros(500, dtype=torch.long), points[torch.randint(4000, (500,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    exact, without, seen = np.log(2.0), loss(0), loss(4)  # of the uniform density 1/2 on half of the square
    assert exact - 0.1 < seen < (exact + without) / 2


def test_flow_carries_mean_actions():
    flow, a = crooked_flow(), rng_of(1).normal(size=(T, 50, 3))
    for t in range(T):
        np.testing.assert_allclose(flow.at(t).mean_action, a[t].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow)), "state_dict", "used state_dict"],
    ids=["copy", "pickle", "state_dict", "state_dict of a used one"],
)
def test_flows_can_be_copied(clone):
    """Also into a flow that has been asked for its means before."""
    flow = crooked_flow()
    flow.at(0).mean  # noqa: B018
    if callable(clone):
        twin = clone(flow)
    else:
        twin = Flow(**flow.arguments).eval()
        if clone.startswith("used"):
            twin.at(0).mean  # noqa: B018
        twin.load_state_dict(flow.state_dict())
    x = rng_of(0).normal(size=(T + 1, 9, 2))
    np.testing.assert_array_equal(twin.log_density_path(x), flow.log_density_path(x))
    np.testing.assert_array_equal(twin.sample_path(9, rng_of(1)), flow.sample_path(9, rng_of(1)))
    for t in range(T):
        np.testing.assert_array_equal(twin.at(t).mean, flow.at(t).mean)
        np.testing.assert_array_equal(twin.at(t).mean_action, flow.at(t).mean_action)


def test_means_follow_training_and_standardisation():
    flow = Flow(1, 1)
    assert flow.at(0).mean.item() == pytest.approx(0, abs=1e-3)
    flow.standardise(np.array([[[1.0], [3.0]], [[4.0], [8.0]]]))
    np.testing.assert_allclose(flow.means, [[2.0], [6.0]], atol=1e-2)
    flow.standardise(np.array([[[8.0], [12.0]], [[4.0], [8.0]]]), weight=0.25)  # a quarter of the way
    np.testing.assert_allclose(flow.location, [[4.0], [6.0]])
    np.testing.assert_allclose(flow.scale, [[1.25], [2.0]])
    np.testing.assert_allclose(flow.means, [[4.0], [6.0]], atol=1e-2)
    flow.train()
    with torch.no_grad():
        flow.location += 1  # stands for a step of training
    flow.eval()
    np.testing.assert_allclose(flow.means, [[5.0], [7.0]], atol=1e-2)


@pytest.mark.parametrize(
    ("x", "a", "named"),
    [
        ((T, 5, 2), None, "x"),
        ((T + 1, 5, 1), None, "x"),
        ((T + 1, 5), None, "x"),
        ((T + 1, 5, 2), (T + 1, 5, 3), "a"),
        ((T + 1, 5, 2), (T, 5, 2), "a"),
    ],
)
def test_standardise_checks_shapes(x, a, named):
    with pytest.raises(ValueError, match=f"^{named} must have shape"):
        crooked_flow().standardise(np.zeros(x), None if a is None else np.zeros(a))


def test_standing_still_has_a_finite_density():
    flow = Flow(1, T)
    flow.standardise(np.ones((T + 1, 5, 1)))
    assert np.all(np.isfinite(flow.at(0).log_density(np.array([[1.0], [2.0]]))))
    np.testing.assert_allclose(flow.at(0).sample(5, rng_of(0)), 1.0, atol=1e-4)


def test_components_of_a_mixture_come_apart():
    """Three actions in equal parts, whatever the state: each component takes one."""
    torch.manual_seed(0)
    policy = AveragePolicy(1, 1, 1, (0.0,), (1.0,), (1.0,), components=3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(400):
        x, targets = torch.randn(512, 1), torch.randint(-1, 2, (512, 1)) * 1.0
        loss = -policy.log_prob(torch.zeros(512, dtype=torch.long), x, targets + 0.1 * torch.randn(512, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        log_weights, mean, log_std = policy.parameters_at(torch.zeros(1), torch.zeros(1, 1))
    np.testing.assert_allclose(np.sort(mean[0, :, 0]), [-1, 0, 1], atol=0.1)
    np.testing.assert_allclose(log_weights.exp()[0], 1 / 3, atol=0.05)
    np.testing.assert_allclose(log_std.exp().ravel(), 0.1, atol=0.03)


@pytest.mark.parametrize(("dim", "transforms"), [(1, 0), (2, 1), (3, 1)])
def test_a_flow_must_transform_every_coordinate(dim, transforms):
    with pytest.raises(ValueError, match="transforms must be at least"):
        Flow(dim, 4, transforms=transforms)


@pytest.mark.parametrize(("dim", "waves"), [(0, 6), (-1, 6), (2, -1)])
def test_a_flow_without_dimension_or_with_negative_waves(dim, waves):
    with pytest.raises(ValueError, match="dim must be at least 1 and waves at least 0"):
        Flow(dim, 4, waves=waves)
