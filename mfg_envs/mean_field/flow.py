"""The crowd as a time-conditioned normalizing flow: learnt from trajectories, sampled and evaluated at any t.

Source: DEDA-FP (arXiv 2510.22158) learns mu_t by a conditional neural spline flow. This is the one by coupling (Durkan
et al. 2019, arXiv 1906.04032): it is sampled in one pass, as fast as it is evaluated. zuko provides it. The
standardisation by one location and scale for each t, the waves that the couplings see, and the mean by quasi-random
quadrature, are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import norm, qmc
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.lazy import Flow as LazyFlow
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform
from zuko.utils import broadcast

from mfg_envs.games.base import Array
from mfg_envs.mean_field.base import MeanField

QUADRATURE_POINTS = 1024  # base points behind `mean`
TINY_SCALE = 1e-6
BLOCK = 16_384  # points that a long evaluation takes at a time: what they need stays in a CPU's cache


class Flow(nn.Module, MeanField):
    """mu_t for t = 0, ..., T: a neural spline flow given t/T, around a location and a scale for each t.

    An untrained flow is the Gaussian with that location and scale. Train it by maximum likelihood:

        flow.standardise(x, a)                    # trajectories x (T+1, N, d), projected actions a (T, N, k)
        flow.train()
        loss = -flow.log_prob(t, x_t).mean()      # t (n,) integers, x_t (n, d); any torch optimiser
        flow.eval()

    Args:
        dim: d >= 1.
        horizon: T.
        action_dim: k, for the table of mean actions that the crowd carries.
        transforms: number of spline transformations, by default 3 on the line and 2 elsewhere. Elsewhere they transform
            every other coordinate given the rest, in turns: 2 or more.
        hidden, bins: widths of their networks, bins of each spline.
        waves: couplings see sin(j pi x / sqrt 3) and cos(j pi x / sqrt 3) of the coordinates that are given, for
            j = 1, ..., waves: a uniform crowd of variance 1 is as wide as the longest. They tell walls apart.
        frequencies: the flow sees t/T and cos(j pi t/T) for j = 1, ..., frequencies.

    Raises:
        ValueError: if dim is below 1, waves is below 0, or there are too few transforms to reach every coordinate.
    """

    def __init__(
        self,
        dim: int,
        horizon: int,
        action_dim: int = 1,
        transforms: int | None = None,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
        waves: int = 6,
        frequencies: int = 6,
    ) -> None:
        super().__init__()
        self.dim, self.horizon, self.action_dim = dim, horizon, action_dim
        transforms = transforms if transforms is not None else 3 if dim == 1 else 2
        if dim < 1 or waves < 0:
            raise ValueError(f"dim must be at least 1 and waves at least 0, got {dim} and {waves}")
        if transforms < min(dim, 2):
            raise ValueError(f"transforms must be at least {min(dim, 2)} for dim = {dim}, got {transforms}")
        self.arguments: dict[str, Any] = {
            "dim": dim,
            "horizon": horizon,
            "action_dim": action_dim,
            "transforms": transforms,
            "hidden": tuple(hidden),
            "bins": bins,
            "waves": waves,
            "frequencies": frequencies,
        }
        spline: dict[str, Any] = {
            "univariate": MonotonicRQSTransform,
            "shapes": [(bins,), (bins,), (bins - 1,)],  # widths, heights, slopes between bins
            "hidden_features": tuple(hidden),
        }
        self.nsf = LazyFlow(
            [
                ElementWiseTransform(dim, 1 + frequencies, **spline)
                if dim == 1
                else Coupling(torch.arange(dim) % 2 == i % 2, 1 + frequencies, waves, **spline)
                for i in range(transforms)
            ],
            UnconditionalDistribution(DiagNormal, loc=torch.zeros(dim), scale=torch.ones(dim), buffer=True),
        )
        for module in self.nsf.modules():  # zero spline parameters are the identity: start from the Gaussian
            if isinstance(module, nn.Sequential):
                nn.init.zeros_(module[-1].weight)  # type: ignore[arg-type]
                nn.init.zeros_(module[-1].bias)  # type: ignore[arg-type]
        tau = torch.arange(horizon + 1) / max(horizon, 1)
        cosines = torch.cos(torch.pi * tau[:, None] * torch.arange(1, frequencies + 1))
        self.context: Tensor
        self.location: Tensor
        self.scale: Tensor
        self.mean_actions: Tensor
        self.register_buffer("context", torch.cat([tau[:, None], cosines], dim=1), persistent=False)
        self.register_buffer("location", torch.zeros(horizon + 1, dim))
        self.register_buffer("scale", torch.ones(horizon + 1, dim))
        self.register_buffer("mean_actions", torch.zeros(horizon, action_dim))
        self._means: np.ndarray | None = None

    def standardise(self, x: np.ndarray, a: np.ndarray | None = None, weight: float = 1.0) -> None:
        """Take location and scale for each t from states x (T+1, N, d), and mean actions from a (T, N, k) if given.

        With a weight below 1, location and scale go only that share of the way from what they are.

        Raises:
            ValueError: if a shape does not fit this flow.
        """
        if np.ndim(x) != 3 or (np.shape(x)[0], np.shape(x)[2]) != (self.horizon + 1, self.dim):
            raise ValueError(f"x must have shape ({self.horizon + 1}, N, {self.dim}), got {np.shape(x)}")
        self.location.lerp_(torch.as_tensor(x.mean(axis=1)).to(self.location), weight)
        self.scale.lerp_(torch.as_tensor(np.maximum(x.std(axis=1), TINY_SCALE)).to(self.scale), weight)
        if a is not None:
            if np.ndim(a) != 3 or (np.shape(a)[0], np.shape(a)[2]) != (self.horizon, self.action_dim):
                raise ValueError(f"a must have shape ({self.horizon}, N, {self.action_dim}), got {np.shape(a)}")
            self.mean_actions.copy_(torch.as_tensor(a.mean(axis=1)))
        self._means = None

    def train(self, mode: bool = True) -> Flow:
        """Training mode forgets the table of means, which is computed once after training, at first use."""
        self._means = None
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module; other weights have other means."""
        self._means = None
        return super().load_state_dict(*args, **kwargs)

    def log_prob(self, t: Tensor, x: Tensor) -> Tensor:
        """log mu_t(x), differentiable in x and in the parameters: t (n,) integers, x (n, d) -> (n,).

        x may be (..., d), and t of any shape that broadcasts against x.shape[:-1]; so may they for `push`.
        """
        location, scale = self.location[t], self.scale[t]
        standard = self.nsf(self.context[t]).log_prob((x - location) / scale)
        return standard - scale.log().sum(dim=-1)

    def push(self, t: Tensor, z: Tensor) -> Tensor:
        """Standard normal z (n, d) to states at t (n,): (n, d), differentiable."""
        return self.location[t] + self.scale[t] * self.nsf(self.context[t]).transform.inv(z)

    def at(self, t: int) -> FlowDistribution:
        """mu_t, for t = 0, ..., T."""
        self._check_time(t)
        return FlowDistribution(self, t)

    @property
    def means(self) -> np.ndarray:
        """Mean states, (T+1, d) float64, by quasi-random quadrature over the base distribution."""
        if self._means is None:
            points = qmc.Sobol(self.dim, seed=0).random(QUADRATURE_POINTS)
            z = torch.as_tensor(norm.ppf(points)).to(self.location)
            steps = torch.arange(self.horizon + 1, device=z.device)
            with torch.no_grad():
                x = self.push(steps[:, None], z.expand(len(steps), -1, -1))
            self._means = x.double().mean(dim=1).cpu().numpy()
        return self._means

    def sample_path(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n samples of each marginal in one batch, (T+1, n, d) float64."""
        return self._sample(torch.arange(self.horizon + 1), n, rng)

    def log_density_path(self, x: np.ndarray) -> np.ndarray:
        """log mu_t(x_t) at every t in one batch: (T+1, n, d) -> (T+1, n) float64."""
        self._check_path(x)
        return self._evaluate(self.log_prob, torch.arange(self.horizon + 1), x)

    def _sample(self, t: Tensor, n: int, rng: np.random.Generator) -> np.ndarray:
        """n states at each of the times t (m,): (m, n, d) float64."""
        return self._evaluate(self.push, t, rng.standard_normal((len(t), n, self.dim)))

    def _evaluate(self, function: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: np.ndarray) -> np.ndarray:
        """log_prob or push at times t (m,) and points y (m, n, d), in blocks: (m, n, ...) float64."""
        points = torch.as_tensor(y).to(self.location)
        times = t.to(points.device)[:, None]
        rows = max(1, BLOCK // max(1, y.shape[1]))
        with torch.no_grad():
            found = [
                torch.cat([function(times_, part) for part in points_.split(BLOCK, dim=1)], dim=1)
                for times_, points_ in zip(times.split(rows), points.split(rows), strict=True)
            ]
        return torch.cat(found).double().cpu().numpy()


class Coupling(GeneralCouplingTransform):
    """Spline transformation of some coordinates, by a network that sees the given ones, their waves and the context.

    Args:
        given: (d,) bool, the coordinates that are left as they are.
        context: width of the context.
        waves: as of `Flow`.
        spline: as of zuko's GeneralCouplingTransform.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Coupling:
        """An instance: zuko's own reads the first argument as a number of coordinates."""
        return nn.Module.__new__(cls)

    def __init__(self, given: Tensor, context: int, waves: int, **spline: Any) -> None:
        super().__init__(len(given), context + 2 * waves * int(given.sum()), given, **spline)
        self.waves: Tensor
        self.register_buffer("waves", torch.pi / 3**0.5 * torch.arange(1, waves + 1), persistent=False)

    def meta(self, c: Tensor, x: Tensor) -> Any:
        """The transformation given the coordinates x (..., m) and the context c (..., context)."""
        phases = (x[..., None] * self.waves).flatten(-2)
        return super().meta(torch.cat(broadcast(c, phases.sin(), phases.cos(), ignore=1), dim=-1), x)


class FlowDistribution:
    """mu_t of a flow at one t."""

    def __init__(self, flow: Flow, t: int) -> None:
        self.flow, self.t = flow, t

    @property
    def mean(self) -> np.ndarray:
        """Mean state, (d,) float64."""
        return self.flow.means[self.t]

    @property
    def mean_action(self) -> np.ndarray:
        """Mean action of the policy that the flow was fitted to, (k,) float64.

        Raises:
            ValueError: at T, where nobody acts.
        """
        if self.t == self.flow.horizon:
            raise ValueError("there is no mean action at T")
        return self.flow.mean_actions[self.t].double().cpu().numpy()

    def log_density(self, x: Array) -> Array:
        """log mu_t(x), in the library of x, differentiable under PyTorch: (n, d) -> (n,)."""
        flow, t = self.flow, torch.tensor([self.t])
        if isinstance(x, Tensor):
            return flow.log_prob(t.to(flow.location.device), x.to(flow.location)).to(x)
        return flow._evaluate(flow.log_prob, t, x[None])[0]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n independent states, (n, d) float64; the base noise comes from `rng`."""
        return self.flow._sample(torch.tensor([self.t]), n, rng)[0]
