"""Equilibria, best responses and exploitability on a grid, for any game of dimension 1 or 2. Ours.

A state is a cell. Where a step leads to is read off `game.step` alone, from a few points of the cell and at quadrature
nodes of the noise, and what arrives at a point is dealt out to the cells around it by quadratic B-splines. What points
and splines add to the variance of a step is taken out of the noise. Backwards in time this operator gives values,
forwards the flow of the crowd: on the grid the two are exactly adjoint.

The equilibrium is found by fictitious play: best responses to the average of the flows so far.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from scipy import ndimage, sparse

from mfg_envs.envs import Policy, simulate
from mfg_envs.envs.core import check_mean_field
from mfg_envs.equilibrium.results import BestResponse, Equilibrium, Exploitability
from mfg_envs.games import Game
from mfg_envs.games.floor_plan import FloorPlan
from mfg_envs.mean_field import Distribution, Empirical, MeanField
from mfg_envs.mean_field.grid import Grid, GridDistribution, Mesh

FORMAT = "mfg-envs equilibrium on a grid, version 2"
CELLS = {1: 200, 2: 80}  # across the longest side
ACTIONS = {1: 11, 2: 5}  # across the action box, before refinement
ITERATIONS = {1: 100, 2: 20}
TAIL = 3.7  # standard deviations of the noise that the quadrature covers
SPACING = 1.0  # of its nodes, in standard deviations: the trapezoidal rule is then good to 1e-8 for what is smooth
SOURCES = (-0.25, 0.25)  # where in a cell mass starts from along each axis, in widths from the centre
SPLINE_VARIANCE, SOURCE_VARIANCE = 0.25, 0.0625  # that these add to a step, in widths squared
REFINEMENT = ((0.5, False), (0.25, True))  # steps of it in distances of actions, and whether in polar coordinates
DRAWS = 16  # actions drawn in each cell from a random policy
AT_ONCE = 8  # laws that are pushed through a transition together
COARSER = 1.5  # ratio of cells behind resolution errors


# --- policies --------------------------------------------------------------------------------------------------------


class GridPolicy:
    """Actions in the cells of a mesh, multilinear between their centres, but never across a wall.

    Args:
        mesh: the cells.
        actions: (T, n, k), of the free cells.
    """

    def __init__(self, mesh: Mesh, actions: np.ndarray) -> None:
        self.mesh, self.actions = mesh, actions

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions at t: x (n, d) -> (n, k)."""
        return self.mesh.linear(self.inside(x)) @ self.actions[t].astype(np.float64)

    def inside(self, x: np.ndarray) -> np.ndarray:
        """The nearest points of the mesh's box, as games without a floor know no bounds: (n, d) -> (n, d)."""
        return np.clip(x, self.mesh.floor.low, self.mesh.floor.high)


class Mixture:
    """Each agent plays one of several policies for the whole episode, drawn at `reset`.

    Args:
        policies: callables `policy(t, x)`; those with a method `reset(n, rng)` are reset with the agents they got.
        weights: their probabilities.

    Raises:
        ValueError: unless there are as many weights as policies, none negative, of positive sum.
    """

    def __init__(self, policies: Sequence[Policy], weights: Sequence[float] | np.ndarray) -> None:
        self.policies, self.weights = list(policies), np.asarray(weights, dtype=np.float64)
        if self.weights.shape != (len(self.policies),) or not self.weights.min(initial=1) >= 0 < self.weights.sum():
            raise ValueError(f"weights must be {len(self.policies)} probabilities, got {weights!r}")
        self.weights = self.weights / self.weights.sum()
        self._rows: list[np.ndarray] | None = None

    def reset(self, n: int, rng: np.random.Generator) -> None:
        """Draw which of the policies each of n agents plays."""
        chosen = rng.choice(len(self.policies), size=n, p=self.weights)
        order = np.argsort(chosen, kind="stable")
        self._rows = np.split(order, np.searchsorted(chosen[order], np.arange(1, len(self.policies))))
        for policy, rows in zip(self.policies, self._rows, strict=True):
            if hasattr(policy, "reset"):
                policy.reset(len(rows), rng)

    def select(self, rows: np.ndarray) -> None:
        """Go on with these of the agents, (m,) indices that may repeat: each keeps its component, as do its copies.

        Raises:
            ValueError: before the first `reset`.
        """
        if self._rows is None:
            raise ValueError("reset(n, rng) must be called first")
        chosen, rank = np.empty((2, sum(map(len, self._rows))), dtype=np.intp)
        for i, old in enumerate(self._rows):
            chosen[old], rank[old] = i, np.arange(len(old))
        self._rows = [np.flatnonzero(chosen[rows] == i) for i in range(len(self.policies))]
        for policy, new in zip(self.policies, self._rows, strict=True):
            if hasattr(policy, "select"):
                policy.select(rank[rows[new]])

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """Actions at t of the agents of the last `reset`, in the same order: x (n, d) -> (n, k).

        Raises:
            ValueError: before the first `reset`, or for another number of agents.
        """
        if self._rows is None or sum(map(len, self._rows)) != len(x):
            raise ValueError(f"reset(n, rng) must be called first, with n = {len(x)} agents")
        played = [
            (rows, policy(t, x[rows])) for policy, rows in zip(self.policies, self._rows, strict=True) if len(rows)
        ]
        a = np.empty((len(x), played[0][1].shape[1]))
        for rows, part in played:
            a[rows] = part
        return a


# --- transitions -----------------------------------------------------------------------------------------------------


class _AtCentres:
    """mu_t as `game.reward` reads it at the centres of all cells, once or several times over."""

    def __init__(self, mu: Distribution, centres: np.ndarray) -> None:
        self._mu, self._centres = mu, centres

    @cached_property
    def mean(self) -> np.ndarray:
        return self._mu.mean

    @cached_property
    def mean_action(self) -> np.ndarray:
        return self._mu.mean_action

    @cached_property
    def _log_density(self) -> np.ndarray:
        if isinstance(self._mu, GridDistribution) and self._mu.mesh.centres is self._centres:
            with np.errstate(divide="ignore"):
                return np.log(self._mu.mass / self._mu.mesh.volume)
        return np.asarray(self._mu.log_density(self._centres), dtype=np.float64)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self._log_density, len(x) // len(self._centres))


class Transition:
    """Where the cells' mass goes in one step, as weights on points that `game.step` gives.

    If actions do no more than shift the noise, `step(x, a, z) = step(x, a0, z + S(a))`, which is tried and not
    assumed, the points are those of the idle action a0 at fixed nodes of z, and an action only weighs them: any action
    then costs little. The nodes are staggered, along one axis at even t and along the other at odd t, as steps past
    the corner of a wall jump, which a fixed lattice of nodes sees too coarsely. If actions do more, every one has
    points of its own, which start from the centres of the cells.
    """

    def __init__(self, model: Model, t: int, mu: Distribution | None) -> None:
        self.model, self.t, self.mu = model, t, mu
        game, mesh = model.game, model.mesh
        d, n = game.dim, len(mesh)
        self.idle = game.project_action((game.action_low + game.action_high)[None] / 2)
        gain, carry = self._slope("z"), self._slope("x")
        squared_width = np.diag((mesh.widths**2).mean(axis=0))
        kept = _shrink(gain, SPLINE_VARIANCE * squared_width + SOURCE_VARIANCE * carry @ squared_width @ carry.T)
        self.shifts = np.linalg.matrix_rank(kept, tol=0.3) == d
        if self.shifts:
            self._unscale = np.linalg.inv(kept)
            self._to_noise = np.linalg.inv(gain)
            self.shifts = self._shifts()
        if self.shifts:
            shift = self._shift(model.actions)
            low, high = shift.min(axis=0) - TAIL, shift.max(axis=0) + TAIL
            staggered = (self.t + np.arange(d)) % 2
            counts = np.ceil((high - low) / SPACING).astype(int) + 1 + staggered
            self.nodes = [
                m + SPACING * (np.arange(c) - (c - 1) / 2) for m, c in zip((low + high) / 2, counts, strict=True)
            ]
            self.shifts = np.prod(counts) < 9**d * len(model.actions)
        if self.shifts:
            z = np.tile(np.array(list(product(*self.nodes))) @ kept.T, (n, 1))
            x, widths = (np.repeat(a, len(z) // n, axis=0) for a in (mesh.centres, mesh.widths))
            sources = list(product(SOURCES, repeat=d))
            self._deposit = sum(self._rows_of(self._step(x + source * widths, self.idle, z)) for source in sources)
            self._deposit /= len(sources)
            self._collect = self._deposit.T.tocsr()
            self._weights = _outer(self._weigh(model.actions))
        else:
            kept = _shrink(gain, SPLINE_VARIANCE * squared_width)
            nodes, weights = np.polynomial.hermite_e.hermegauss(5 if kept.any() else 1)
            self._z = np.array(list(product(nodes, repeat=d))) @ kept.T
            self._w = np.prod(list(product(weights / weights.sum(), repeat=d)), axis=1)
            self._deposit = sparse.vstack([self._rows(np.tile(a, (n, 1))) for a in model.actions]).tocsr()

    def _step(self, x: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
        return self.model.game.step(self.t, x, np.broadcast_to(a, (len(x), a.shape[1])), self.mu, z)  # type: ignore[arg-type]

    def _rows_of(self, x: np.ndarray) -> sparse.csr_array:
        """What arrives at points, dealt out to the cells: x (m, d) -> (m, n)."""
        mesh = self.model.mesh
        return mesh.spline(np.clip(x, mesh.floor.low, mesh.floor.high) if self.model.clips else x)

    def _slope(self, by: str) -> np.ndarray:
        """The median over the cells of how "x" or "z" moves the next state, (d, d)."""
        centres, d = self.model.mesh.centres, self.model.game.dim
        columns = []
        for axis in range(d):
            off = np.zeros_like(centres)
            off[:, axis] = 1e-4
            x, z = (off, 0 * off) if by == "x" else (0 * off, off)
            moved = self._step(centres + x, self.idle, z) - self._step(centres - x, self.idle, -z)
            columns.append(np.median(moved, axis=0) / 2e-4)
        slope = np.stack(columns, axis=1)
        slope[np.abs(slope) < 1e-9 * np.abs(slope).max(initial=0)] = 0
        return slope

    def _shift(self, a: np.ndarray) -> np.ndarray:
        """S(a) in standard deviations of what noise is kept: (m, k) -> (m, d)."""
        x = np.tile(self.model.open_cell, (len(a), 1))
        z = np.zeros(x.shape)
        return (self._step(x, a, z) - self._step(x[:1], self.idle, z[:1])) @ (self._unscale @ self._to_noise).T

    def _shifts(self) -> bool:
        """Whether actions shift the noise, tried at random states, actions and noises."""
        game, mesh, rng, m = self.model.game, self.model.mesh, np.random.default_rng(0), 500
        x = mesh.centres[rng.integers(len(mesh), size=m)]
        a = rng.uniform(game.action_low, game.action_high, (m, game.action_dim))
        z = rng.standard_normal((m, game.dim))
        shifted = z + self._shift(a) @ np.linalg.inv(self._unscale).T
        off = np.abs(self._step(x, a, z) - self._step(x, self.idle, shifted)).max(axis=1)
        size = max(np.subtract(mesh.floor.high, mesh.floor.low))
        return bool(np.mean(off <= 1e-8 * size) > 0.99)  # at the edge of a wall rounding decides on which side one goes

    def _weigh(self, a: np.ndarray) -> list[np.ndarray]:
        """Probabilities of the nodes along each axis under each action: a (m, k) -> d arrays (m, nodes)."""
        weights = []
        for s, nodes in zip(self._shift(a).T, self.nodes, strict=True):
            w = nodes - s[:, None]
            w *= w
            w *= -0.5
            np.exp(w, out=w)
            w /= w.sum(axis=1, keepdims=True)
            weights.append(w)
        return weights

    def _rows(self, a: np.ndarray) -> sparse.csr_array:
        """The transition matrix (n, n) if the cells' actions are a (n, k)."""
        mesh, q = self.model.mesh, len(self._z)
        n = len(mesh)
        points = self._step(np.tile(mesh.centres, (q, 1)), np.tile(a, (q, 1)), np.repeat(self._z, n, axis=0))
        average = sparse.csr_array(
            (np.repeat(self._w, n), (np.tile(np.arange(n), q), np.arange(q * n))), shape=(n, q * n)
        )
        return average @ self._rows_of(points)

    def ahead(self, values: np.ndarray) -> np.ndarray:
        """What `of_grid` and `of` start from: values at the next time, (n,)."""
        at_points = self._deposit @ values
        return at_points.reshape(len(values), -1) if self.shifts else values

    def of_grid(self, ahead: np.ndarray) -> np.ndarray:
        """Expected value of every action of the model's grid in every cell, (actions, n)."""
        if self.shifts:
            return self._weights @ ahead.T
        return (self._deposit @ ahead).reshape(len(self.model.actions), -1)

    def of(self, ahead: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Expected value where the cells' actions are a (n, k): (n,)."""
        if self.shifts:
            for w in reversed(self._weigh(a)):
                ahead = np.einsum("nij,nj->ni", ahead.reshape(*w.shape[:1], -1, w.shape[1]), w)
            return ahead[:, 0]
        return self._rows(a) @ ahead

    def push(self, mass: np.ndarray, a: np.ndarray) -> np.ndarray:
        """The mass at the next time, if the cells' actions are a: (n,), or several at once, (..., n), (..., n, k)."""
        masses, actions = mass.reshape(-1, mass.shape[-1]), a.reshape(-1, *a.shape[-2:])
        pushed = np.empty(masses.shape)
        if not self.shifts:
            for i, (row, one) in enumerate(zip(masses, actions, strict=True)):
                pushed[i] = self._rows(one).T @ row
            return pushed.reshape(mass.shape)
        n = masses.shape[1]
        for i in range(0, len(masses), AT_ONCE):
            some = masses[i : i + AT_ONCE]
            weights = self._weigh(actions[i : i + AT_ONCE].reshape(len(some) * n, -1))
            points = np.ascontiguousarray(some.T)[:, None]  # (n, nodes, laws)
            for w in weights:
                w = np.ascontiguousarray(w.reshape(len(some), n, -1).transpose(1, 2, 0))
                points = (points[:, :, None] * w[:, None]).reshape(n, -1, len(some))
            pushed[i : i + AT_ONCE] = (self._collect @ points.reshape(-1, len(some))).T
        return pushed.reshape(mass.shape)

    def push_grid(self, played: np.ndarray) -> np.ndarray:
        """The mass at the next time, if (n, m) of it are in the cells and play the model's actions: -> (n,)."""
        if self.shifts:
            return self._collect @ (played @ self._weights).ravel()
        return self._deposit.T @ played.T.ravel()


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    """Products of the columns of all factors, row by row: arrays (m, c_i) -> (m, prod of c_i)."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, :, None] * factor[:, None, :]).reshape(len(factor), -1)
    return result


def _shrink(gain: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The matrix L (d, d) that takes variance (d, d) out of noise: gain L L' gain' = gain gain' - variance.

    Where there is less noise than that, none is kept.
    """
    inverse = np.linalg.pinv(gain, rcond=1e-9)
    values, vectors = np.linalg.eigh(inverse @ gain - inverse @ variance @ inverse.T)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


class Model:
    """A game on a grid.

    Args:
        game: a game of dimension 1 or 2.
        cells: across the longest side, see `Mesh`; None for the default.
        actions: across the action box, projected and then refined between; None for the default.
        bounds: (low, high) of the grid for a game without a floor; steps that lead beyond end at the border.

    Attributes:
        mesh: the n cells.
        actions: (m, k), those that are tried before refinement.
        initial: (n,), mu_0.

    Raises:
        ValueError: if the game has more dimensions, or has no floor and there are no bounds, or a number is too small.
    """

    def __init__(
        self, game: Game, cells: int | None = None, actions: int | None = None, bounds: Any | None = None
    ) -> None:
        if game.dim not in (1, 2):
            raise ValueError(f"the grid oracle takes games of dimension 1 or 2, {type(game).__name__} has {game.dim}")
        if game.floor is None and bounds is None:
            raise ValueError(f"{type(game).__name__} has no floor: the grid oracle needs bounds=(low, high)")
        self.clips = game.floor is None
        if game.floor is not None:
            floor = game.floor
        else:
            low, high = (tuple(np.broadcast_to(np.asarray(b, dtype=float), game.dim).tolist()) for b in bounds)  # type: ignore[union-attr]
            floor = FloorPlan(low, high)
        across = ACTIONS[min(game.action_dim, 2)] if actions is None else actions
        if isinstance(across, bool) or not isinstance(across, (int, np.integer)) or across < 2:
            raise ValueError(f"actions must be an integer of at least 2, got {actions!r}")
        self.game, self.across = game, int(across)
        self.mesh = Mesh(floor, CELLS[game.dim] if cells is None else cells)
        axes = [np.linspace(a, b, self.across) for a, b in zip(game.action_low, game.action_high, strict=True)]
        grid = game.project_action(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, game.action_dim))
        self.actions = np.unique(np.round(grid, 12), axis=0)
        self.spacing = (game.action_high - game.action_low) / (self.across - 1)
        solid = np.pad(self.mesh.free, 1)
        self.open_cell = self.mesh.centres[np.argmax(ndimage.distance_transform_edt(solid)[solid])]
        self._fixed: dict[int, Transition] = {}
        self._stencils: dict[Mesh, sparse.csr_array] = {}

    @cached_property
    def initial(self) -> np.ndarray:
        """mu_0, (n,), from a trapezoidal rule with nodes no further apart than half a cell, where it is not huge."""
        game, d = self.game, self.game.dim
        eps = 1e-4 * np.eye(d)
        gain = np.stack([(game.initial_state(e[None]) - game.initial_state(-e[None]))[0] / 2e-4 for e in eps], axis=1)
        width = (self.mesh.widths**2).mean(axis=0) ** 0.5
        kept, nodes = _shrink(gain, SPLINE_VARIANCE * np.diag(width**2)), []
        for size in np.abs(gain).max(axis=0) / width.min():  # of a standard deviation, in cells
            nodes.append(np.linspace(-6, 6, int(24 * min(max(size, 1.0), 20.0)) + 1))
        z = np.array(list(product(*nodes)))
        w = np.exp(-0.5 * (z**2).sum(axis=1))
        x = game.initial_state(z @ kept.T)
        x = np.clip(x, self.mesh.floor.low, self.mesh.floor.high) if self.clips else x
        return self.mesh.spline(x).T @ (w / w.sum())

    def transition(self, t: int, mu: Distribution | None) -> Transition:
        """The operator at t in the crowd mu."""
        if self.game.dynamics_reads:
            return Transition(self, t, mu)
        key = t % 2 if self.recurs else t
        if key not in self._fixed:
            self._fixed[key] = Transition(self, key, None)
        return self._fixed[key]

    @cached_property
    def recurs(self) -> bool:
        """Whether two operators, for even and odd t, are all there are: the step reads neither the crowd nor t."""
        game, rng, x = self.game, np.random.default_rng(0), self.mesh.centres
        if game.dynamics_reads:
            return False
        a = rng.uniform(game.action_low, game.action_high, (len(x), game.action_dim))
        z = rng.standard_normal(x.shape)
        first = game.step(0, x, a, None, z)  # type: ignore[arg-type]
        return all(np.array_equal(first, game.step(t, x, a, None, z)) for t in range(1, game.horizon))  # type: ignore[arg-type]

    def _at_centres(self, mu: Distribution) -> Distribution:
        return cast(Distribution, _AtCentres(mu, self.mesh.centres))

    def reward(self, t: int, a: np.ndarray, mu: Distribution) -> np.ndarray:
        """Rewards at t in all cells: a (m n, k), for each of m actions all cells -> (m n,)."""
        x = self.mesh.centres
        return self.game.reward(t, np.tile(x, (len(a) // len(x), 1)), a, self._at_centres(mu))

    def terminal_reward(self, mu: Distribution) -> np.ndarray:
        """Terminal rewards in all cells, (n,)."""
        return self.game.terminal_reward(self.mesh.centres, self._at_centres(mu))

    # --- backwards and forwards ---

    def respond(self, crowd: MeanField) -> tuple[GridPolicy, float]:
        """The best policy against a crowd, and its expected return."""
        game, n, T = self.game, len(self.mesh), self.game.horizon
        tiled = np.repeat(self.actions, n, axis=0)
        table = np.empty((T, n, game.action_dim), dtype=np.float32)
        values = self.terminal_reward(crowd.at(T))
        for t in reversed(range(T)):
            mu = crowd.at(t)
            transition = self.transition(t, mu)
            ahead = transition.ahead(values)
            q = self.reward(t, tiled, mu).reshape(-1, n) + transition.of_grid(ahead)
            best = q.argmax(axis=0)

            def q_of(a: np.ndarray, t=t, mu=mu, transition=transition, ahead=ahead) -> np.ndarray:  # type: ignore[no-untyped-def]
                return self.reward(t, a, mu) + transition.of(ahead, a)

            table[t], values = self._refine(self.actions[best], q[best, np.arange(n)], q_of)
        return GridPolicy(self.mesh, table), float(self.initial @ values)

    def _refine(
        self, a: np.ndarray, value: np.ndarray, q: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Better actions near a (n, k), by the vertex of a parabola along one axis after the other."""
        k = a.shape[1]
        middle = (self.game.action_low + self.game.action_high) / 2
        for step, polar in REFINEMENT:
            frame = np.broadcast_to(np.eye(k), (len(a), k, k))
            if polar and k == 2:  # outwards and across, which suits actions on the edge of a disc
                out = (a - middle) / self.spacing + [1e-9, 0]
                out /= np.sqrt((out**2).sum(axis=1, keepdims=True))
                frame = np.stack([out, out[:, ::-1] * [-1, 1]], axis=1)
            off = np.zeros(a.shape)
            for axis in range(k):
                move = step * self.spacing * frame[:, axis]
                q_below, q_above = q(self.game.project_action(a - move)), q(self.game.project_action(a + move))
                bend = np.minimum(q_below - 2 * value + q_above, -1e-300)
                off += np.clip((q_below - q_above) / (2 * bend), -1, 1)[:, None] * move
            trial = self.game.project_action(a + off)
            q_trial = q(trial)
            better = q_trial > value
            a, value = np.where(better[:, None], trial, a), np.where(better, q_trial, value)
        return a, value

    def act(self, policy: Policy, t: int, draws: int) -> np.ndarray:
        """Projected actions of the policy in all cells, `draws` times over, (draws, n, k).

        Raises:
            ValueError: if it returns NaN or another shape.
        """
        game, n = self.game, len(self.mesh)
        if isinstance(policy, GridPolicy):  # its stencils are the same at all t
            if policy.mesh not in self._stencils:
                self._stencils[policy.mesh] = policy.mesh.linear(policy.inside(self.mesh.centres))
            a = self._stencils[policy.mesh] @ policy.actions[t].astype(np.float64)
        else:
            a = np.asarray(policy(t, np.tile(self.mesh.centres, (draws, 1))), dtype=np.float64)
        if a.shape != (draws * n, game.action_dim):
            raise ValueError(f"policy must return actions of shape {(draws * n, game.action_dim)}, got {a.shape}")
        if np.isnan(a).any():
            i = int(np.flatnonzero(np.isnan(a).any(axis=1))[0])
            raise ValueError(f"policy must not return NaN, did so at t = {t}, x = {self.mesh.centres[i % n].tolist()}")
        return game.project_action(a).reshape(draws, n, -1)

    def flow(self, policy: Policy, crowd: MeanField | None = None, seed: int = 0) -> tuple[Grid, float]:
        """The flow of those who play the policy, and their return: in a given crowd, or in each other's.

        The components of a `Mixture` are pushed each on its own; of other random policies, actions are drawn in each
        cell anew at each t.
        """
        grid, returns = self.flow_and_returns(policy, crowd, seed)
        return grid, returns[0]

    def flow_and_returns(
        self, policy: Policy, crowd: MeanField | None = None, seed: int = 0, others: Sequence[MeanField] = ()
    ) -> tuple[Grid, list[float]]:
        """`flow`, with the returns in other crowds behind it; the dynamics are those in the first crowd, in all."""
        game, T, n = self.game, self.game.horizon, len(self.mesh)
        components, weights = (policy.policies, policy.weights) if isinstance(policy, Mixture) else ([policy], [1.0])
        rng = np.random.default_rng(seed)
        draws = [DRAWS if hasattr(component, "reset") else 1 for component in components]
        for component, m in zip(components, draws, strict=True):
            if hasattr(component, "reset"):
                component.reset(m * n, rng)
        first = np.cumsum([0, *draws[:-1]])  # draw of each component
        shares = np.repeat(np.divide(weights, draws), draws)
        laws = np.tile(self.initial, (len(components), 1))
        history, mean_actions = np.empty((T + 1, n)), np.empty((T, game.action_dim))
        returns = np.zeros(1 + len(others))
        for t in range(T):
            a = np.concatenate([self.act(component, t, m) for component, m in zip(components, draws, strict=True)])
            history[t] = weights @ laws
            masses = np.repeat(laws, draws, axis=0)
            mean_actions[t] = np.einsum("i,in,ink->k", shares, masses, a)
            mu = GridDistribution(self.mesh, history[t], mean_actions[t]) if crowd is None else crowd.at(t)
            for i, seen in enumerate([mu, *(other.at(t) for other in others)]):
                reward = self.reward(t, a.reshape(-1, game.action_dim), seen).reshape(-1, n)
                returns[i] += np.einsum("i,in,in->", shares, masses, reward)
            pushed = self.transition(t, mu).push(masses, a)
            laws = np.add.reduceat(pushed, first) / np.array(draws)[:, None]
        history[T] = weights @ laws
        grid = Grid(self.mesh, history, mean_actions)
        for i, read in enumerate([grid if crowd is None else crowd, *others]):
            returns[i] += history[T] @ self.terminal_reward(read.at(T))
        return grid, returns.tolist()

    def masses(self, crowd: MeanField) -> np.ndarray:
        """A crowd's mass in the cells, (T+1, n).

        Of a crowd that is not on this mesh, from its density at 2^d points of each cell. Where the game has a floor,
        what is off it is left out and each row sums to one; without a floor, what is missing is beyond the grid.
        """
        if isinstance(crowd, Grid) and crowd.mesh is self.mesh:
            return crowd.masses
        mesh, sources = self.mesh, product(SOURCES, repeat=self.game.dim)
        points = np.concatenate([mesh.centres + source * mesh.widths for source in sources])
        density = np.exp([crowd.at(t).log_density(points) for t in range(self.game.horizon + 1)])
        masses = density.reshape(len(density), -1, len(mesh)).mean(axis=1) * mesh.volume
        return masses if self.clips else masses / masses.sum(axis=1, keepdims=True)

    def total_variation(self, nu: MeanField, mu: MeanField) -> float:
        """Total variation between two crowds on the cells, averaged over t = 0, ..., T: between 0 and 1."""
        apart = self.masses(nu) - self.masses(mu)
        beyond = np.abs(apart.sum(axis=1))
        return float((np.abs(apart).sum(axis=1) + beyond).mean() / 2)

    def reward_distance(self, nu: MeanField, mu: MeanField) -> float:
        """How far the rewards in two crowds can be apart along a path, in units of return.

        D(nu, mu) = max over policies of E sum_t sup_a |r_t(x, a; nu) - r_t(x, a; mu)|, the terminal reward's difference
        included, by dynamic programming over the model's actions, with the dynamics in mu. No policy's return differs
        by more between the two crowds, and no policy's exploitability by more than 2 D, where the dynamics read no
        crowd. Averaged distances do not see the holes in a density that a best response looks for; this one does.
        """
        tiled = np.repeat(self.actions, len(self.mesh), axis=0)
        T = self.game.horizon
        values = np.abs(self.terminal_reward(nu.at(T)) - self.terminal_reward(mu.at(T)))
        for t in reversed(range(T)):
            off = np.abs(self.reward(t, tiled, nu.at(t)) - self.reward(t, tiled, mu.at(t)))
            transition = self.transition(t, mu.at(t))
            ahead = transition.of_grid(transition.ahead(values)).max(axis=0)
            values = off.reshape(-1, len(values)).max(axis=0) + ahead
        return float(self.initial @ values)

    def mean_policy(self, mixture: Mixture, crowd: MeanField) -> tuple[GridPolicy, np.ndarray]:
        """What those of a mixture's agents who are in a cell do there on average, and how far they differ.

        With weights w_k, actions a^k and flows mu^k in the crowd: sum_k w_k mu^k a^k / sum_k w_k mu^k, and the standard
        deviation around it, (T, n). Where nobody is, all components count. Noise blurs the difference between playing
        this mean and playing the mixture, so the flows are nearly the same; where costs are convex in the action, the
        mean's are no higher.

        Raises:
            ValueError: if a component is random itself.
        """
        if any(hasattr(policy, "reset") for policy in mixture.policies):
            raise ValueError("the components of the mixture must not be random: one of them has a method reset")
        masses, mean, spread = np.outer(mixture.weights, self.initial), [], []
        for t in range(self.game.horizon):
            actions = np.stack([self.act(policy, t, 1)[0] for policy in mixture.policies])
            there = masses + 1e-100 * mixture.weights[:, None]
            there /= there.sum(axis=0)
            mean.append(np.einsum("in,ink->nk", there, actions))
            spread.append(np.sqrt(np.einsum("in,ink->n", there, (actions - mean[t]) ** 2)))
            transition = self.transition(t, crowd.at(t))
            masses = transition.push(masses, actions)
        return GridPolicy(self.mesh, np.stack(mean)), np.stack(spread)

    def value(self, policies: Sequence[GridPolicy], flows: Sequence[Grid], weights: np.ndarray, crowd: Grid) -> float:
        """Return in the crowd of those who play policies with known flows, with these weights."""
        if self.game.dynamics_reads:
            return self.flow(Mixture(policies, weights), crowd)[1]
        total = float(crowd.masses[-1] @ self.terminal_reward(crowd.at(self.game.horizon)))
        for t in range(self.game.horizon):
            mu = crowd.at(t)
            for policy, flow, weight in zip(policies, flows, weights, strict=True):
                reward = self.reward(t, policy.actions[t].astype(np.float64), mu)
                total += weight * float(flow.masses[t] @ reward)
        return total


# --- the oracle ------------------------------------------------------------------------------------------------------


def solve(
    game: Game,
    cells: int | None = None,
    actions: int | None = None,
    iterations: int | None = None,
    averaging: str = "linear",
    tolerance: float = 1e-3,
    bounds: Any | None = None,
    resolution_error: bool = False,
    progress: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> Equilibrium:
    """The equilibrium on a grid by fictitious play; its policy is a `Mixture` of the best responses.

    The first best response is to a crowd that stands idle. Best response k joins the average with the weight 2/(k+2)
    (linear) or 1/(k+1) (uniform); k = 0 makes up all of it.

    Args:
        game: a game of dimension 1 or 2.
        cells, actions, bounds: see `Model`.
        iterations: best responses at most.
        averaging: "linear" or "uniform".
        tolerance: stop when the exploitability on the grid is no more than this; looked at now and then.
        resolution_error: whether to solve on cells 1.5 times as wide, too, and to report how far the value moves.
        progress: whether to show a bar, where tqdm is installed.
        cache: an `.npz` file to keep the result in; it is loaded instead if it is of this game and these settings.

    Raises:
        ValueError: if an argument is out of range, or the cache is no file of this kind, or truncated.
    """
    model = Model(game, cells, actions, bounds)
    count = ITERATIONS[game.dim] if iterations is None else iterations
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"iterations must be a positive integer, got {iterations!r}")
    if averaging not in ("linear", "uniform"):
        raise ValueError(f"averaging must be 'linear' or 'uniform', got {averaging!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance!r}")
    floor = model.mesh.floor
    resolution = [floor.low, floor.high, model.mesh.cells, model.across]
    settings = json.dumps(
        [FORMAT, type(game).__name__, game.constants, *resolution, int(count), averaging, float(tolerance)]
    )
    result = _load(cache, settings, model) if cache is not None else None
    if result is None:
        result = _fictitious_play(model, int(count), averaging, float(tolerance), progress)
        if cache is not None:
            _save(cache, settings, result)
    if resolution_error:
        coarse = solve(game, _coarser(model.mesh.cells), actions, iterations, averaging, tolerance, bounds)
        result = replace(result, resolution_error=abs(result.value - coarse.value))
    return result


def _fictitious_play(model: Model, count: int, averaging: str, tolerance: float, progress: bool) -> Equilibrium:
    game = model.game
    idle = game.project_action((game.action_low + game.action_high)[None] / 2)
    crowd, _ = model.flow(lambda t, x: np.repeat(idle, len(x), axis=0))
    policies: list[GridPolicy] = []
    flows: list[Grid] = []
    weights = np.empty(0)
    history: list[tuple[int, float]] = []
    bar = _progress(count, progress)
    for k in range(count + 1):
        policy, best = model.respond(crowd)
        if k == count or (k > 0 and k % max(1, k // 4) == 0):
            value = model.value(policies, flows, weights, crowd)
            history.append((k, best - value))
            if k == count or best - value <= tolerance:
                break
        rate = 2 / (k + 2) if averaging == "linear" else 1 / (k + 1)
        weights = np.append((1 - rate) * weights, rate)
        policies.append(policy)
        if game.dynamics_reads:  # where everybody goes depends on all
            crowd, _ = model.flow(Mixture(policies, weights))
        else:
            flow, _ = model.flow(policy, crowd)
            flows.append(flow)
            crowd = flow if k == 0 else _average(crowd, flow, rate)
        bar.update()
    bar.close()
    return Equilibrium(Mixture(policies, weights), crowd, value, history[-1][1], game=game, history=tuple(history))


def _average(old: Grid, new: Grid, rate: float) -> Grid:
    """The crowd of which a part `rate` is the new one."""
    assert old.mean_actions is not None
    assert new.mean_actions is not None
    return Grid(
        old.mesh,
        (1 - rate) * old.masses + rate * new.masses,
        (1 - rate) * old.mean_actions + rate * new.mean_actions,
    )


def _progress(count: int, wanted: bool) -> Any:
    if wanted:
        try:
            from tqdm import tqdm

            return tqdm(total=count, desc="fictitious play", unit="iteration")
        except ImportError:
            pass
    return SimpleNamespace(update=lambda: None, close=lambda: None)


def _coarser(cells: int) -> int:
    return int(cells / COARSER)


def _save(path: str | os.PathLike[str], settings: str, result: Equilibrium) -> None:
    """Write the file, whole or not at all."""
    mixture, crowd = cast(Mixture, result.policy), cast(Grid, result.mean_field)
    partial = f"{os.fspath(path)}.partial"
    with open(partial, "wb") as file:
        np.savez(
            file,
            settings=np.array(settings),
            weights=mixture.weights,
            actions=np.stack([cast(GridPolicy, policy).actions for policy in mixture.policies]),
            masses=crowd.masses,
            mean_actions=cast(np.ndarray, crowd.mean_actions),
            value=np.array(result.value),
            history=np.array(result.history),
        )
    os.replace(partial, path)


def _load(path: str | os.PathLike[str], settings: str, model: Model) -> Equilibrium | None:
    """What is in the file; None if there is none, or it is of another game or other settings.

    Raises:
        ValueError: if it is no such file, or truncated.
    """
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = json.loads(str(file["settings"]))
            if not isinstance(found, list) or found[0] != FORMAT:
                raise KeyError("settings")
            if found != json.loads(settings):
                return None
            policies = [GridPolicy(model.mesh, actions) for actions in file["actions"]]
            history = tuple((int(k), float(gap)) for k, gap in file["history"])
            crowd = Grid(model.mesh, file["masses"], file["mean_actions"])
            policy, value = Mixture(policies, file["weights"]), float(file["value"])
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"cache {os.fspath(path)!r} is truncated or no equilibrium on a grid") from error
    return Equilibrium(policy, crowd, value, history[-1][1], game=model.game, history=history)


def best_response(
    game: Game,
    mean_field: MeanField,
    cells: int | None = None,
    actions: int | None = None,
    bounds: Any | None = None,
) -> BestResponse:
    """The best policy on a grid against a frozen crowd, and its expected return there; see `Model` for the arguments.

    Raises:
        ValueError: if an argument is out of range, or the crowd is not of the game's horizon.
    """
    check_mean_field(game, mean_field)
    return BestResponse(*Model(game, cells, actions, bounds).respond(mean_field))


def exploitability(
    game: Game,
    policy: Policy,
    num_agents: int = 10_000,
    seed: int = 0,
    cells: int | None = None,
    actions: int | None = None,
    bounds: Any | None = None,
) -> Exploitability:
    """How much a best response gains over `policy` in the crowd of those who play it.

    If the game reads densities, the crowd is pushed through the grid's operator, without any noise of sampling: the
    components of a `Mixture` one by one; of another random policy (one with a method `reset`) 16 actions are drawn in
    each cell at each t. If it reads means only, they are those of simulated agents.

    `value` is the gain on the grid, where both returns are exact, so it is not negative but for rounding and what is
    left to refine of the best actions. `lower` is the gain by play in the continuous game in that same crowd with
    common noise, and `stderr` its standard error: it may be negative. `crowd_error` is how far `value` moves when the
    crowd is replaced by that of the coarser grid (of half of the agents, for means), `resolution_error` how far when
    everything is done on cells 1.5 times as wide.

    Args:
        game: a game of dimension 1 or 2.
        policy: any callable `policy(t, x)`: t an int, x (n, d) float64 -> a (n, k). If it has `reset(n, rng)`, that is
            called first.
        num_agents: number of simulated agents, at least 4.
        seed: of the simulation, and of a random policy's actions.
        cells, actions, bounds: see `Model`.

    Raises:
        ValueError: if an argument is out of range, or the policy returns NaN or misshapen actions.
    """
    if isinstance(num_agents, bool) or not isinstance(num_agents, (int, np.integer)) or num_agents < 4:
        raise ValueError(f"num_agents must be an integer of at least 4, got {num_agents!r}")
    model = Model(game, cells, actions, bounds)
    coarse = Model(game, _coarser(model.mesh.cells), actions, bounds)
    own: MeanField | None
    other: MeanField
    if "log_density" in game.reward_reads | game.dynamics_reads:
        other, coarsely_earned = coarse.flow(policy, seed=seed)
        coarse_gap = coarse.respond(other)[1] - coarsely_earned
        own = None
    else:
        played = simulate(game, policy, num_agents=num_agents, seed=seed)
        own = Empirical.from_trajectories(played.states, played.actions)
        half = slice(num_agents // 2)
        other = Empirical.from_trajectories(played.states[:, half], played.actions[:, half])
        coarse_gap = coarse.respond(own)[1] - coarse.flow(policy, own, seed)[1]
    flow, (earned, earned_elsewhere) = model.flow_and_returns(policy, own, seed, [other])
    crowd = flow if own is None else own
    if game.dynamics_reads:
        earned_elsewhere = model.flow(policy, other, seed)[1]
    best, value = model.respond(crowd)
    gap = value - earned
    elsewhere = model.respond(other)[1] - earned_elsewhere
    gains = (
        simulate(game, best, crowd, num_agents, seed).returns - simulate(game, policy, crowd, num_agents, seed).returns
    )
    return Exploitability(
        value=gap,
        lower=float(gains.mean()),
        crowd_error=abs(elsewhere - gap),
        resolution_error=abs(coarse_gap - gap),
        policy_return=earned,
        best_response_return=value,
        stderr=float(gains.std(ddof=1) / num_agents**0.5),
    )
