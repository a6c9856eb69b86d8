"""From the mean field to N players: what one of N gains by leaving a policy that all others keep. Ours.

Linear-quadratic games are answered exactly, by a Riccati recursion. In games that pay for the density the others are
sampled: rewards are averaged over crowds of N - 1, and what is best in those is played in fresh ones.
docs/n_players.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from scipy import linalg

from mfg_envs.envs import Policy
from mfg_envs.envs.core import check_mean_field
from mfg_envs.equilibrium.grid import GridPolicy, Model
from mfg_envs.equilibrium.linear_quadratic import Form, has_closed_form, linear_quadratic_form
from mfg_envs.equilibrium.results import AffinePolicy, NPlayerGap
from mfg_envs.games import Game
from mfg_envs.games.base import as_floats
from mfg_envs.mean_field import MeanField
from mfg_envs.mean_field.density import density_met

CROWDS = (64, 512)  # in which a deviation is judged: at least, at most,
AGENTS = 500_000  # and in between as many as have so many agents in all
PLANNED = (32, 256)  # crowds that it is planned for, of half as many agents in all
PAIRS = (32, 256)  # of deviator and keeper in each crowd: at least, at most, and in between an eighth of N
LEVELS = 16  # of the density in a cell that stand for its law over the crowds
BATCH = 250_000  # agents that are moved at a time


def n_player_gap(game: Game, policy: Policy, num_agents: int, seed: int = 0, **resolution: Any) -> NPlayerGap:
    """The gain of the best deviation of one agent in the N-player game in which the other N-1 play `policy`.

    Against the mean field there is nothing to gain at equilibrium. In the N-player game there is, and it goes to zero
    with N: an equilibrium of the mean field game is an approximate one of the N-player game.

    **Linear-quadratic games**: exact, for an `AffinePolicy`. The deviator sees its own state and the mean state of the
    others, which is all there is to know, and counts in the crowd's means itself. The action box is not part of it. The
    pair y = (own state, mean of the others) is linear in the deviator's action and the reward quadratic in both, so one
    Riccati recursion on y gives the best deviation, and the performance-difference identity gives what it gains:
    sum_t E (a - a*)' W_t (a - a*) while everybody, the deviator too, plays `policy`.

    **Games that pay for the density** and whose dynamics do not read the crowd, in dimension 1 and 2: the best
    decentralised deviation, which sees t and its own state x, but not where the others are. They do not notice it, so
    to the deviator they are a part of the reward: it maximises the sum of r_N(t, x, a) = E r(t, x, a, mu^N), by dynamic
    programming on the grid. mu^N is the density that the environments show to an agent at x, estimated from the N - 1
    others with the bandwidth for all N. The expectation over crowds of others who play the policy is of the reward, not
    of the density: the logarithm makes a difference. What the deviation sees in those crowds by chance is no gain,
    so `value` is what it earns above the policy in fresh crowds, by play in the continuous game. There a deviator and
    an agent that keeps the policy start alike, meet the same others and have the same noise; there are 32 to 256 such
    pairs in each crowd. At large N what remains of the gap is the exploitability of the policy. J_N is what those who
    keep the policy earn, J what they earn on the same paths in the crowd that the grid makes of the policy.

    Args:
        game: a linear-quadratic game, or one of dimension 1 or 2 with a floor that reads nothing but densities, and
            those in its rewards only.
        policy: an affine policy such as `solve(game).policy` for a linear-quadratic game. Else any callable
            `policy(t, x)`: t an int, x (n, d) float64 -> a (n, k). If it has `reset(n, rng)`, that is called first.
        num_agents: N, at least 2.
        seed: of the crowds; without effect on linear-quadratic games.
        resolution: where crowds are sampled: `crowds`, the number of fresh ones, at least 2, from 512 for few agents to
            64 for many unless given; `cells` and `actions` of the grid, see `mfg_envs.equilibrium.grid.Model`: no fewer
            than the policy was solved on; `mean_field`, the crowd of the policy, if it is known: computing it on the
            grid is slow for mixtures of many policies.

    Raises:
        TypeError: for another policy in a linear-quadratic game.
        ValueError: if a number is out of range; if the policy returns NaN or misshapen actions; if the game is not
            linear-quadratic and its dynamics read the crowd, its rewards read means, or it has no floor.
    """
    if isinstance(num_agents, bool) or not isinstance(num_agents, (int, np.integer)) or num_agents < 2:
        raise ValueError(f"num_agents must be an integer of at least 2, got {num_agents!r}")
    if not has_closed_form(game, **resolution):
        return _sampled(game, policy, int(num_agents), seed, **resolution)
    if not isinstance(policy, AffinePolicy):
        raise TypeError(f"policy must be an AffinePolicy, got {type(policy).__name__}")
    form, share = linear_quadratic_form(game), 1 / int(num_agents)
    gap, earned = _exact(form, policy, share)
    return NPlayerGap(gap, 0.0, earned, _exact(form, policy, 0.0)[1], 0.0)


# --- linear-quadratic games: exact -----------------------------------------------------------------------------------


def _exact(form: Form, policy: AffinePolicy, share: float) -> tuple[float, float]:
    """What the best deviation gains, and what the policy earns, if one agent's share of all means is 1/N (0: none)."""
    d = len(form.m0)
    own, everyone = np.eye(d, 2 * d), np.hstack([share * np.eye(d), (1 - share) * np.eye(d)])  # of y: x, mean of all
    B = np.vstack([form.B, 0 * form.B])
    # Backwards: the best deviation a* = -(G_t y + g_t), and W_t.
    P, p = own.T @ form.Q_T @ own, np.zeros(2 * d)
    best = []
    for t in reversed(range(form.horizon)):
        A, c = _pair_dynamics(form, policy, t, own, everyone)
        others = (1 - share) * np.hstack([0 * policy.K[t], policy.K[t]])  # their share of the mean action is -others y
        cross = own.T @ (form.Q_m @ everyone - form.Q_b @ others)
        Q = own.T @ form.Q @ own + cross + cross.T + everyone.T @ form.H @ everyone
        q = own.T @ (form.q - (1 - share) * form.Q_b @ policy.k[t])
        mixed = share * form.Q_b.T @ own  # the deviator's own share of the mean action
        W = form.R + B.T @ P @ B
        G = linalg.solve(W, B.T @ P @ A + mixed, assume_a="pos")
        g = linalg.solve(W, B.T @ (P @ c + p), assume_a="pos")
        best.append((W, G, g))
        p = q + A.T @ (P @ c + p) - G.T @ W @ g
        P = Q + A.T @ P @ A - G.T @ W @ G
        P = (P + P.T) / 2
    # Forwards: everybody plays the policy.
    mean = np.concatenate([form.m0, form.m0])
    covariance = linalg.block_diag(form.S0, form.S0 * share / (1 - share))  # 1/(N-1)
    noise = linalg.block_diag(form.S @ form.S.T, form.S @ form.S.T * share / (1 - share))
    gap = earned = 0.0
    for t, (W, G, g) in enumerate(reversed(best)):
        K, k = policy.K[t] @ own, policy.k[t]
        off, offset = G - K, g - k + (G - K) @ mean
        gap += float(np.sum(W * (off @ covariance @ off.T)) + offset @ W @ offset)
        cross = own.T @ (form.Q_m - form.Q_b @ policy.K[t]) @ everyone
        Q = own.T @ form.Q @ own + K.T @ form.R @ K + cross + cross.T + everyone.T @ form.H @ everyone
        q = own.T @ (form.q - form.Q_b @ k) + K.T @ form.R @ k
        earned -= float(np.sum(Q * covariance) + mean @ Q @ mean + 2 * q @ mean + k @ form.R @ k + form.h)
        A, c = _pair_dynamics(form, policy, t, own, everyone)
        conforming = A - B @ K
        mean = conforming @ mean + c - B @ k
        covariance = conforming @ covariance @ conforming.T + noise
    x, X = own @ mean, own @ covariance @ own.T
    return gap, earned - float(np.sum(form.Q_T * X) + x @ form.Q_T @ x)


def _pair_dynamics(
    form: Form, policy: AffinePolicy, t: int, own: np.ndarray, everyone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A and c of y' = A y + B a + c + noise, y = (own state, mean of the others), who play the policy."""
    d = len(form.m0)
    others = np.hstack([np.zeros((d, d)), form.A - form.B @ policy.K[t]])
    A = np.vstack([form.A @ own + form.A_bar @ everyone, others + form.A_bar @ everyone])
    return A, np.concatenate([np.zeros(d), -form.B @ policy.k[t]])


# --- games that pay for the density: sampled -------------------------------------------------------------------------


def _sampled(
    game: Game,
    policy: Policy,
    N: int,
    seed: int,
    crowds: int | None = None,
    cells: int | None = None,
    actions: int | None = None,
    mean_field: MeanField | None = None,
) -> NPlayerGap:
    name = type(game).__name__
    if game.dynamics_reads:
        raise ValueError(
            f"the dynamics of {name} read the crowd {sorted(game.dynamics_reads)}, so the others notice a deviation: "
            "n_player_gap takes such games only if they are linear-quadratic"
        )
    if game.reward_reads - {"log_density"}:
        raise ValueError(
            f"{name} is not linear-quadratic, and its rewards read {sorted(game.reward_reads)}: "
            "n_player_gap takes such games only if they read log_density alone"
        )
    if game.floor is None:
        raise ValueError(f"{name} has no floor: n_player_gap takes such games only if they are linear-quadratic")
    pairs = int(np.clip(N // 8, *PAIRS))
    if crowds is None:
        crowds = int(np.clip(AGENTS // (N + pairs), *CROWDS))
    if isinstance(crowds, bool) or not isinstance(crowds, (int, np.integer)) or crowds < 2:
        raise ValueError(f"crowds must be an integer of at least 2, got {crowds!r}")
    planned = int(np.clip(AGENTS // (2 * N), *PLANNED))
    model = _AmongOthers(game, cells, actions)
    planning, judging = np.random.default_rng(seed).spawn(2)
    if mean_field is None:
        mean_field, _ = model.flow(policy, seed=seed)
    check_mean_field(game, mean_field)
    deviation, _ = model.respond(cast(MeanField, _levels_met(model, policy, N, planned, planning)))
    kept, left, alone = _judge(game, policy, deviation, mean_field, N, crowds, pairs, judging).T
    stderr = [float(gain.std(ddof=1) / len(gain) ** 0.5) for gain in (left - kept, kept - alone)]
    return NPlayerGap(float((left - kept).mean()), stderr[0], float(kept.mean()), float(alone.mean()), stderr[1])


class _Known:
    """A crowd whose density (n,) is known at some points (n, d), those that rewards are asked for."""

    def __init__(self, points: np.ndarray, density: np.ndarray) -> None:
        self.points, self.density = points, density

    def log_density(self, x: np.ndarray) -> np.ndarray:
        if x is not self.points and not np.array_equal(x, self.points):
            raise ValueError("the density that one of N meets is known at its own state only: x is not the states")
        with np.errstate(divide="ignore"):
            return np.log(self.density)


class _Levels:
    """A mean field of several crowds at once, each with its probability.

    Args:
        points: (n, d).
        density: (T+1, levels, n), of each crowd at the points.
        weights: (levels,), their probabilities.
    """

    def __init__(self, points: np.ndarray, density: np.ndarray, weights: np.ndarray) -> None:
        self.points, self.density, self.weights = points, density, weights

    def at(self, t: int) -> list[tuple[float, _Known]]:
        return [(w, _Known(self.points, level)) for w, level in zip(self.weights, self.density[t], strict=True)]


class _AmongOthers(Model):
    """A game on a grid in which a deviation is planned: rewards are averages over the crowds of `_Levels`."""

    def reward(self, t: int, a: np.ndarray, mu: Any) -> np.ndarray:
        if not isinstance(mu, list):
            return super().reward(t, a, mu)
        return sum(weight * self.reward(t, a, one) for weight, one in mu)

    def terminal_reward(self, mu: Any) -> np.ndarray:
        if not isinstance(mu, list):
            return super().terminal_reward(mu)
        return sum(weight * self.terminal_reward(one) for weight, one in mu)


def _levels_met(model: Model, policy: Policy, N: int, crowds: int, rng: np.random.Generator) -> _Levels:
    """What one more agent meets in the cells, as the law of the density over crowds of N - 1 others, cell by cell.

    In each cell the crowds are sorted by their density and put into groups; the mean density of a group stands for it.
    The reward depends on its own cell's density alone, so nothing is lost by sorting cell by cell, and what is lost by
    grouping is small: of a crowd's law, only the spread within groups.
    """
    game, centres = model.game, model.mesh.centres
    assert game.floor is not None
    met = np.empty((game.horizon + 1, crowds, len(centres)), dtype=np.float32)
    for batch in _batches(crowds, N - 1):
        for t, others, _, _ in _walk(game, policy, len(batch), N - 1, rng):
            met[t, batch] = density_met(others, np.broadcast_to(centres, (len(batch), *centres.shape)), game.floor)
    met.sort(axis=1)
    edges = np.linspace(0, crowds, min(crowds, LEVELS) + 1).astype(int)
    sizes = np.diff(edges)
    levels = np.add.reduceat(met, edges[:-1], axis=1, dtype=np.float64) / sizes[:, None]
    return _Levels(centres, levels, sizes / crowds)


def _judge(
    game: Game,
    policy: Policy,
    deviation: GridPolicy,
    mean_field: MeanField,
    N: int,
    crowds: int,
    pairs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean returns in each crowd of N - 1 others, (crowds, 3): of those who keep the policy; who leave it, with the
    same start and noise; of those who keep it, on the same paths, in the mean field."""
    assert game.floor is not None
    returns = np.zeros((crowds, 3))
    for batch in _batches(crowds, N - 1 + pairs):
        m = len(batch)
        for t, everyone, a, z in _walk(game, policy, m, N - 1 + pairs, rng):
            others, x = everyone[:, : N - 1], everyone[:, N - 1 :].reshape(m * pairs, -1)
            if t == 0:
                y = x
            met = density_met(others, np.concatenate([x.reshape(m, pairs, -1), y.reshape(m, pairs, -1)], 1), game.floor)
            seen: list[Any] = [_Known(x, met[:, :pairs].ravel()), _Known(y, met[:, pairs:].ravel()), mean_field.at(t)]
            if t < game.horizon:
                kept, left = a[:, N - 1 :].reshape(m * pairs, -1), deviation(t, y)
                played = (x, kept), (y, left), (x, kept)
                rewards = [game.reward(t, *move, mu) for move, mu in zip(played, seen, strict=True)]
                y = game.step(t, y, left, seen[1], z[:, N - 1 :].reshape(m * pairs, -1))
            else:
                rewards = [game.terminal_reward(at, mu) for at, mu in zip((x, y, x), seen, strict=True)]
            returns[batch] += np.stack([reward.reshape(m, pairs).mean(axis=1) for reward in rewards], axis=1)
    return returns


def _batches(crowds: int, agents: int) -> list[range]:
    """The crowds, so many at a time that not too many agents move."""
    size = max(1, BATCH // agents)
    return [range(start, min(start + size, crowds)) for start in range(0, crowds, size)]


def _walk(
    game: Game, policy: Policy, crowds: int, agents: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Crowds of agents who go their own ways: t, states, actions and noise at t, each (crowds, agents, ...), the last
    two empty at T."""
    n = crowds * agents
    x = game.initial_state(rng.standard_normal((n, game.dim)))
    if hasattr(policy, "reset"):
        policy.reset(n, rng.spawn(1)[0])
    for t in range(game.horizon):
        a = as_floats(policy(t, x.copy()))
        if a.shape != (n, game.action_dim) or np.isnan(a).any():
            raise ValueError(f"policy must return actions of shape {(n, game.action_dim)} without NaN, at t = {t}")
        z = rng.standard_normal(x.shape)
        yield t, x.reshape(crowds, agents, -1), a.reshape(crowds, agents, -1), z.reshape(crowds, agents, -1)
        x = game.step(t, x, a, None, z)  # type: ignore[arg-type]
    nothing = np.empty((crowds, agents, 0))
    yield game.horizon, x.reshape(crowds, agents, -1), nothing, nothing
