"""Our games in other libraries: any game of dimension 1 or 2 as an environment of MFGLib (arXiv 2304.08630).

docs/crosscheck.md has an example and says where conventions differ. PyTorch and MFGLib come with the extra
`crosscheck`; they are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mfg_envs.equilibrium.grid import Model, Transition
from mfg_envs.games import Game
from mfg_envs.mean_field import Distribution
from mfg_envs.mean_field.grid import GridDistribution

if TYPE_CHECKING:
    from mfglib.env import Environment
    from torch import Tensor

GIB = 2**30
NOBODY = 1e-300  # joins densities before their logarithm is taken: the derivative of exp(log(0 + NOBODY)) is 1, not NaN


def to_mfglib(
    game: Game,
    cells: int | None = None,
    actions: int | None = None,
    bounds: Any | None = None,
    max_gib: float = 4.0,
) -> Environment:
    """A game as an `Environment` of MFGLib, of `finite_game(game, cells, actions, bounds)`: its states, its actions.

    S = (n,) and A = (m,) number the cells and the actions. Of the T + 1 slices of MFGLib's policies and mean fields,
    the last one has the terminal reward, whatever is played then. Rewards are computed by the game's own methods in
    PyTorch and are differentiable in the mean field, as MF-OMO needs; so are transitions, as long as they do not depend
    on the crowd. Tensors are float64: call MFGLib's functions and algorithms within `float64()`.

    MFGLib wants transitions as a dense tensor (n, n, m). Where the game's step depends on t or on the crowd, the tensor
    is made anew at each call; otherwise two are made and kept, for even and for odd t (docs/oracles.md says why).

    Args:
        game: a game of dimension 1 or 2.
        cells, actions, bounds: see `mfg_envs.equilibrium.grid.Model`.
        max_gib: the most memory in GiB that MFGLib may need for transitions, or for its flow. Without the package
            opt-einsum PyTorch computes that by way of a tensor of (n m)^2 numbers. What algorithms hold besides (MF-OMO
            a matrix of (T+1)^2 n^2 m entries) is not accounted for.

    Raises:
        ImportError: if PyTorch or MFGLib is not installed.
        ValueError: if the game has more dimensions, or has no floor and there are no bounds, or a number is too small,
            or a tensor too large.
    """
    torch, mfglib = _import()
    model = Model(game, cells, actions, bounds)
    n, m = len(model.mesh), len(model.actions)
    _check_size(n, m, 2 if model.recurs else 1, max_gib, torch)
    rewards = _Rewards(model, torch)
    dense: dict[Transition, Tensor] = {}

    def transition(env: Environment, t: int, L_t: Tensor) -> Tensor:
        if game.dynamics_reads and L_t.requires_grad:
            raise ValueError(
                f"the transitions of {type(game).__name__} read the crowd, and their derivatives are not known: "
                "MF-OMO does not apply; take OnlineMirrorDescent, PriorDescent or FictitiousPlay"
            )
        played = L_t.detach().numpy()
        mu = GridDistribution(model.mesh, played.sum(axis=1), played.sum(axis=0) @ model.actions)
        operator = model.transition(t, mu)
        if operator not in dense:
            if not model.recurs:
                dense.clear()
            stored = np.empty((n, m, n))  # by state, action, next state, which MFGLib's products like best
            for i, indicator in enumerate(np.eye(n)):
                stored[:, :, i] = operator.of_grid(operator.ahead(indicator)).T
            dense[operator] = torch.from_numpy(stored).permute(2, 0, 1)
        return dense[operator]

    def reward(env: Environment, t: int, L_t: Tensor) -> Tensor:
        return rewards(t, L_t)

    return cast(
        "Environment",
        mfglib.env.Environment(
            T=game.horizon,
            S=(n,),
            A=(m,),
            mu0=torch.from_numpy(model.initial.copy()),
            r_max=rewards.largest(),
            reward_fn=reward,
            transition_fn=transition,
        ),
    )


@contextmanager
def float64() -> Iterator[None]:
    """Within it PyTorch's default dtype is float64, in which MFGLib makes its own tensors; afterwards what it was."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def to_mfglib_policy(policy: np.ndarray) -> Tensor:
    """A policy of a finite game, (T, n, m), as one of MFGLib, (T+1, n, m): uniform at T, where nothing depends on it.

    The other way it is `pi[:-1].numpy()`.
    """
    import torch

    return torch.from_numpy(np.concatenate([policy, np.full_like(policy[:1], 1 / policy.shape[2])]))


def _import() -> tuple[Any, Any]:
    """PyTorch and MFGLib, whose `mfglib.scoring` can only be imported after `mfglib.alg`."""
    try:
        import mfglib.alg
        import mfglib.env
        import torch
    except ImportError as error:
        raise ImportError(
            "to_mfglib needs PyTorch and MFGLib, the extra `crosscheck`: pip install 'mfg-envs[crosscheck]'"
        ) from error
    return torch, mfglib


def _check_size(n: int, m: int, tensors: int, max_gib: float, torch: Any) -> None:
    needed = {f"transitions, {tensors} x {n} x {n} x {m} numbers,": tensors * n * n * m * 8 / GIB}
    if not torch.backends.opt_einsum.is_available():
        needed[f"flow, without the package opt-einsum {n * m} x {n * m} numbers,"] = (n * m) ** 2 * 8 / GIB
    for what, gib in needed.items():
        if gib > max_gib:
            raise ValueError(
                f"MFGLib's {what} would need {gib:.1f} GiB, the limit is max_gib = {max_gib:g}: "
                "take fewer cells or actions, or raise the limit"
            )


@dataclass
class _Crowd:
    """mu_t in PyTorch, as a game reads it at all cells, for each action: differentiable in what it is made of."""

    density: Tensor  # of the n cells
    mean: Tensor
    mean_action: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        return (self.density + NOBODY).log().repeat(len(x) // len(self.density))


class _Rewards:
    """`game.reward` at all pairs of cells and actions, and at T `game.terminal_reward`, for whichever action."""

    def __init__(self, model: Model, torch: Any) -> None:
        self.game, self.torch = model.game, torch
        self.x, self.a = (torch.from_numpy(array) for array in (model.mesh.centres, model.actions))
        self.volume = torch.from_numpy(model.mesh.volume)
        self.all_x, self.all_a = self.x.repeat(len(self.a), 1), self.a.repeat_interleave(len(self.x), dim=0)

    def __call__(self, t: int, L_t: Tensor) -> Tensor:
        """L_t (n, m) -> (n, m)."""
        mass = L_t.sum(dim=1)
        return self._of(t, _Crowd(mass / self.volume, mass @ self.x, L_t.sum(dim=0) @ self.a))

    def _of(self, t: int, mu: _Crowd) -> Tensor:
        crowd, n, m = cast(Distribution, mu), len(self.x), len(self.a)
        if t == self.game.horizon:
            return self.game.terminal_reward(self.x, crowd)[:, None].expand(n, m)
        return self.game.reward(t, self.all_x, self.all_a, crowd).reshape(m, n).T

    def largest(self) -> float:
        """The largest |reward| over crowds that are nowhere or all in one cell, and whose means are extreme."""
        density = [0 / self.volume, 1 / self.volume] if "log_density" in self.game.reward_reads else [0 / self.volume]
        means = self._corners(self.x) if "mean" in self.game.reward_reads else [self.x[0]]
        mean_actions = self._corners(self.a) if "mean_action" in self.game.reward_reads else [self.a[0]]
        crowds = [_Crowd(*parts) for parts in product(density, means, mean_actions)]
        return max(float(self._of(t, mu).abs().max()) for t in range(self.game.horizon + 1) for mu in crowds)

    def _corners(self, points: Tensor) -> list[Tensor]:
        """Those of the box around points (n, d)."""
        ends = zip(points.min(dim=0).values, points.max(dim=0).values, strict=True)
        return [self.torch.stack(corner) for corner in product(*ends)]
