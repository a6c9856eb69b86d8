"""Policies as networks of t/T and x: the average policy, and one best response.

Source: DEDA-FP (arXiv 2510.22158) learns the average policy by behavioural cloning with a Gaussian head. The mixture
head is ours: an average of best responses that go through different doors has several modes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

LOG_STD_RANGE = (-7.0, 1.0)  # of the scaled action
INITIAL_LOG_STD = -2.0


class _Network(nn.Module):
    """A ReLU network of features of x and t/T; its output is zero at first."""

    def __init__(
        self,
        outputs: int,
        dim: int,
        action_dim: int,
        horizon: int,
        location: tuple[float, ...],
        scale: tuple[float, ...],
        action_scale: tuple[float, ...],
        hidden: tuple[int, ...],
        frequencies: int,
        waves: int,
    ) -> None:
        super().__init__()
        self.dim, self.action_dim, self.horizon = dim, action_dim, horizon
        self.frequencies, self.waves = frequencies, waves
        self.arguments: dict[str, Any] = {
            "dim": dim,
            "action_dim": action_dim,
            "horizon": horizon,
            "location": tuple(map(float, location)),
            "scale": tuple(map(float, scale)),
            "action_scale": tuple(map(float, action_scale)),
            "hidden": tuple(hidden),
            "frequencies": frequencies,
            "waves": waves,
        }
        self.location: Tensor
        self.scale: Tensor
        self.action_scale: Tensor
        self.register_buffer("location", torch.tensor(location, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("action_scale", torch.tensor(action_scale, dtype=torch.float32))
        self.inputs = dim * (1 + 2 * waves) + 1 + frequencies
        widths = (self.inputs, *hidden)
        layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def features(self, x: Tensor, tau: Tensor) -> Tensor:
        """What the network sees of states x (n, d) and tau = t/T (n, 1): (n, inputs).

        The standardised state z; sin(j pi z) and cos(j pi z) of each coordinate for j = 1, ..., waves; tau;
        cos(j pi tau) for j = 1, ..., frequencies.
        """
        z = (x - self.location) / self.scale
        phases = (z[:, :, None] * torch.pi * torch.arange(1, self.waves + 1, device=z.device)).flatten(1)
        ticks = tau * torch.pi * torch.arange(1, self.frequencies + 1, device=z.device)
        return torch.cat([z, torch.sin(phases), torch.cos(phases), tau, torch.cos(ticks)], dim=1)


class DeterministicPolicy(_Network):
    """One action for each t and x, such as a best response: `policy(t, x)` for an integer t and x (n, d).

    `net(features(x, t/T))`, or its tanh, is the action divided by `action_scale`. Nobody moves at first.

    Args:
        dim, action_dim, horizon, location, scale, action_scale, hidden, frequencies, waves: as of `AveragePolicy`.
        squash: take the tanh, so that actions stay within `action_scale` of zero.
    """

    def __init__(
        self,
        dim: int,
        action_dim: int,
        horizon: int,
        location: tuple[float, ...],
        scale: tuple[float, ...],
        action_scale: tuple[float, ...],
        hidden: tuple[int, ...] = (64, 64),
        frequencies: int = 6,
        waves: int = 0,
        squash: bool = False,
    ) -> None:
        super().__init__(
            action_dim, dim, action_dim, horizon, location, scale, action_scale, hidden, frequencies, waves
        )
        self.arguments["squash"] = self.squash = squash

    def forward(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions for states x (n, d) at time t: (n, k) float64."""
        with torch.no_grad():
            states = torch.as_tensor(x).to(self.location)
            seen = self.features(states, torch.full((len(x), 1), t / self.horizon, device=states.device))
            scaled = torch.tanh(self.net(seen)) if self.squash else self.net(seen)
            return (scaled * self.action_scale).double().cpu().numpy()


class AveragePolicy(_Network):
    """A stochastic policy: `policy(t, x)` draws actions for x (n, d) at the integer time t.

    `reset(n, rng)` seeds the draws, as every simulator does before t = 0. The head is a mixture of `components`
    diagonal Gaussians; one component is the Gaussian head of the paper.

    Args:
        dim, action_dim, horizon: d, k, T.
        location, scale: (d,) what states are centred and divided by; (x - location) / scale should be of order one.
        action_scale: (k,) what actions are divided by.
        components: number of Gaussians in the head.
        hidden: widths of the network.
        frequencies: the network sees t/T and cos(j pi t/T) for j = 1, ..., frequencies.
        waves: it sees sin(j pi z) and cos(j pi z) of each standardised coordinate z for j = 1, ..., waves; walls make
            policies that change fast in x.
    """

    def __init__(
        self,
        dim: int,
        action_dim: int,
        horizon: int,
        location: tuple[float, ...],
        scale: tuple[float, ...],
        action_scale: tuple[float, ...],
        components: int = 1,
        hidden: tuple[int, ...] = (64, 64),
        frequencies: int = 6,
        waves: int = 0,
    ) -> None:
        outputs = components * (1 + 2 * action_dim)
        super().__init__(outputs, dim, action_dim, horizon, location, scale, action_scale, hidden, frequencies, waves)
        self.arguments["components"] = self.components = components
        with torch.no_grad():  # components that start alike would stay so
            biases = cast(nn.Linear, self.net[-1]).bias.view(components, 1 + 2 * action_dim)
            biases[:, 1 : 1 + action_dim] = torch.linspace(-0.5, 0.5, components + 2)[1:-1, None]
            biases[:, 1 + action_dim :] = INITIAL_LOG_STD
        self._rng = np.random.default_rng(0)

    def parameters_at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (n, c), means (n, c, k) and log standard deviations (n, c, k) of the scaled action.

        t (n,) integers, x (n, d).
        """
        tau = (t.to(x.dtype) / self.horizon)[:, None]
        raw = self.net(self.features(x, tau)).unflatten(-1, (self.components, 1 + 2 * self.action_dim))
        logits, mean, log_std = raw.split([1, self.action_dim, self.action_dim], dim=-1)
        middle, half = sum(LOG_STD_RANGE) / 2, (LOG_STD_RANGE[1] - LOG_STD_RANGE[0]) / 2
        log_std = middle + half * torch.tanh((log_std - middle) / half)  # has a slope everywhere, unlike a clamp
        return logits.squeeze(-1).log_softmax(dim=-1), mean, log_std

    def log_prob(self, t: Tensor, x: Tensor, a: Tensor) -> Tensor:
        """Log density of actions: t (n,) integers, x (n, d), a (n, k) -> (n,), differentiable."""
        log_weights, mean, log_std = self.parameters_at(t, x)
        z = ((a / self.action_scale)[:, None, :] - mean) * torch.exp(-log_std)
        scales = log_std.sum(dim=-1) + self.action_scale.log().sum() + 0.5 * self.action_dim * math.log(2 * math.pi)
        return torch.logsumexp(log_weights - 0.5 * z.square().sum(dim=-1) - scales, dim=-1)

    def reset(self, n: int, rng: np.random.Generator) -> None:
        """Draw actions from `rng` from now on."""
        self._rng = rng

    def forward(self, t: int, x: np.ndarray) -> np.ndarray:
        """Draw actions for states x (n, d) at time t: (n, k) float64."""
        n = len(x)
        noise, uniform = self._rng.standard_normal((n, self.action_dim)), self._rng.random(n)
        with torch.no_grad():
            states = torch.as_tensor(x).to(self.location)
            log_weights, mean, log_std = self.parameters_at(torch.full((n,), t, device=states.device), states)
            edges = log_weights.exp().cumsum(dim=-1)[:, :-1]
            chosen = (torch.as_tensor(uniform).to(edges)[:, None] > edges).sum(dim=-1)
            rows = torch.arange(n, device=states.device)
            scaled = mean[rows, chosen] + log_std[rows, chosen].exp() * torch.as_tensor(noise).to(mean)
            return (scaled * self.action_scale).double().cpu().numpy()

    def mean_policy(self) -> DeterministicPolicy:
        """The policy that plays `mean_action`, a copy. Ours: noise in the action costs effort where costs are convex.

        Raises:
            ValueError: if the head has more than one component.
        """
        if self.components != 1:
            raise ValueError(f"the mean of a head of {self.components} components is no network: take one component")
        arguments = {name: value for name, value in self.arguments.items() if name != "components"}
        policy = DeterministicPolicy(**arguments).to(self.location.device)
        state = self.state_dict()
        last = f"net.{len(self.net) - 1}"
        for name in (f"{last}.weight", f"{last}.bias"):  # log weight, mean, log standard deviation
            state[name] = state[name][1 : 1 + self.action_dim]
        policy.load_state_dict(state)
        return policy

    def mean_action(self, t: int, x: np.ndarray) -> np.ndarray:
        """Mean of the action's distribution: x (n, d) -> (n, k) float64.

        Playing it is another policy, with another flow and another return: see `mean_policy`.
        """
        with torch.no_grad():
            states = torch.as_tensor(x).to(self.location)
            log_weights, mean, _ = self.parameters_at(torch.full((len(x),), t, device=states.device), states)
            scaled = (log_weights.exp()[:, :, None] * mean).sum(dim=1)
            return (scaled * self.action_scale).double().cpu().numpy()
