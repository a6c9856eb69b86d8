r"""Exact equilibria of linear-quadratic games: Riccati for the gains, one linear system for the crowd. Ours.

Every such game is brought to one form. With m the crowd's mean state and b its mean action,

    x' = A x + B a + A_bar m + S z,
    reward   = -(x'Qx + a'Ra + 2 x'(q + Q_m m + Q_b b) + m'Hm + h),      terminal reward = -x'Q_T x.

Against a given crowd the value is V_t(x) = -(x'P_t x + 2 p_t'x + s_t), the best response a = -(K_t x + k_t), with

    W = R + B'P+B,   K = W^-1 B'P+A,   k = W^-1 B'(P+ A_bar m + p+),
    P = Q + A'P+(A - BK),                     p = q + Q_m m + Q_b b + (A - BK)'(P+ A_bar m + p+),

where + marks t+1. P does not depend on the crowd. In equilibrium b = -(K m + k) and m+ = (A + A_bar) m + B b, which
with the equations of p makes one linear two-point boundary system in all m_t and p_t. It is solved directly:
fixed-point iterations on it diverge for constants for which the equilibrium exists and is unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from scipy import linalg
from scipy.stats import norm

from mfg_envs.envs import Policy, Trajectories, simulate
from mfg_envs.envs.core import check_mean_field
from mfg_envs.equilibrium.results import AffinePolicy, BestResponse, Equilibrium, Exploitability
from mfg_envs.games import Game, LinearQuadratic, PriceImpact
from mfg_envs.games.linear_quadratic import as_matrix
from mfg_envs.mean_field import Gaussian, MeanField

SMALLEST_RCOND = 1e-13  # reciprocal condition number below which the boundary system counts as singular


@dataclass(frozen=True, eq=False)
class Form:
    """The matrices of the module's docstring, and the initial law N(m0, S0)."""

    horizon: int
    A: np.ndarray
    B: np.ndarray
    A_bar: np.ndarray
    S: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    q: np.ndarray
    Q_m: np.ndarray
    Q_b: np.ndarray
    Q_T: np.ndarray
    H: np.ndarray
    h: float
    m0: np.ndarray
    S0: np.ndarray


@singledispatch
def linear_quadratic_form(game: Game) -> Form:
    """The game in linear-quadratic form.

    Raises:
        TypeError: for a game that is not linear-quadratic.
    """
    raise TypeError(f"{type(game).__name__} is not a linear-quadratic game: there is no closed form")


@linear_quadratic_form.register
def _(game: LinearQuadratic) -> Form:
    d, eye = game.dim, np.eye(game.dim)
    target, m0 = np.broadcast_to(game.x_target, d).astype(float), np.broadcast_to(game.m0, d).astype(float)
    return Form(
        horizon=game.horizon,
        A=as_matrix(game.A, d),
        B=as_matrix(game.B, d),
        A_bar=as_matrix(game.A_bar, d),
        S=game.sigma * eye,
        Q=(game.c_x + game.c_m) * eye,
        R=game.c_a * np.eye(game.action_dim),
        q=-game.c_x * target,
        Q_m=-game.c_m * eye,
        Q_b=np.zeros((d, game.action_dim)),
        Q_T=0 * eye,
        H=game.c_m * eye,
        h=float(game.c_x * target @ target),
        m0=m0,
        S0=game.s0**2 * eye,
    )


@linear_quadratic_form.register
def _(game: PriceImpact) -> Form:
    one, zero = np.eye(1), np.zeros((1, 1))
    return Form(
        horizon=game.horizon,
        A=one,
        B=game.dt * one,
        A_bar=zero,
        S=game.sigma * game.dt**0.5 * one,
        Q=game.dt * game.c_q * one,
        R=game.dt * game.c_a * one,
        q=np.zeros(1),
        Q_m=zero,
        Q_b=-game.dt * game.gamma / 2 * one,
        Q_T=game.c_g * one,
        H=zero,
        h=0.0,
        m0=np.array([game.m0]),
        S0=game.s0**2 * one,
    )


def has_closed_form(game: Game, **resolution: Any) -> bool:
    """Whether the game is linear-quadratic.

    Raises:
        ValueError: if it is, and a resolution is asked for all the same.
    """
    try:
        linear_quadratic_form(game)
    except TypeError:
        return False
    if resolution:
        raise ValueError(f"{type(game).__name__} is solved in closed form, which takes no {', '.join(resolution)}")
    return True


def _riccati(form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P (T+1, d, d), W (T, k, k) and K (T, k, d), backwards from T."""
    T, d, k = form.horizon, *form.B.shape
    P, W, K = np.empty((T + 1, d, d)), np.empty((T, k, k)), np.empty((T, k, d))
    P[T] = form.Q_T
    for t in reversed(range(T)):
        W[t] = form.R + form.B.T @ P[t + 1] @ form.B
        K[t] = linalg.solve(W[t], form.B.T @ P[t + 1] @ form.A, assume_a="pos")
        P[t] = form.Q + form.A.T @ P[t + 1] @ (form.A - form.B @ K[t])
        P[t] = (P[t] + P[t].T) / 2
        if not np.all(np.isfinite(P[t])):
            raise ValueError("there is no unique equilibrium that floating-point numbers can tell: the gains overflow")
    return P, W, K


@dataclass(frozen=True, eq=False)
class _Value:
    """V_t(x) = -(x'P_t x + 2 p_t'x + s_t) against one crowd, W_t, and the best response."""

    P: np.ndarray
    p: np.ndarray
    s: np.ndarray
    W: np.ndarray
    policy: AffinePolicy

    def mean(self, m0: np.ndarray, S0: np.ndarray) -> float:
        """E V_0(x_0) for x_0 of mean m0 and covariance S0."""
        return -float(np.sum(self.P[0] * S0) + m0 @ self.P[0] @ m0 + 2 * self.p[0] @ m0 + self.s[0])


def _respond(form: Form, m: np.ndarray, b: np.ndarray) -> _Value:
    """The best response to a crowd of mean states m (T+1, d) and mean actions b (T, k)."""
    T = form.horizon
    P, W, K = _riccati(form)
    p, s, k = np.zeros(m.shape), np.zeros(T + 1), np.empty(b.shape)
    for t in reversed(range(T)):
        drift = form.A_bar @ m[t]
        pull = P[t + 1] @ drift + p[t + 1]
        k[t] = linalg.solve(W[t], form.B.T @ pull, assume_a="pos")
        p[t] = form.q + form.Q_m @ m[t] + form.Q_b @ b[t] + (form.A - form.B @ K[t]).T @ pull
        s[t] = s[t + 1] + form.h + m[t] @ form.H @ m[t] + drift @ (pull + p[t + 1]) - k[t] @ W[t] @ k[t]
        s[t] += np.sum((form.S @ form.S.T) * P[t + 1])
    return _Value(P, p, s, W, AffinePolicy(K, k))


def _equilibrium_crowd(form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Mean states (T+1, d) and mean actions (T, k) in equilibrium, from the two-point boundary system.

    Raises:
        ValueError: if the system is singular or so ill-conditioned that no digit of its solution can be trusted.
    """
    T, d = form.horizon, form.A.shape[0]
    P, W, K = _riccati(form)
    # Unknowns: m_1, ..., m_T and then p_0, ..., p_{T-1}; m_0 is given, p_T = 0. The p are measured in units of P, so
    # that the condition of the system does not depend on the units of costs and of length.
    unit = max(np.abs(P).max(), np.finfo(float).tiny)
    size = 2 * T * d
    system, right = np.zeros((size, size)), np.zeros(size)

    def m(t: int) -> slice:
        return slice((t - 1) * d, t * d)

    def p(t: int) -> slice:
        return slice((T + t) * d, (T + t + 1) * d)

    for t in range(T):
        to_k = linalg.solve(W[t], form.B.T, assume_a="pos")  # k_t = to_k (P+ A_bar m_t + p_{t+1})
        to_b_m = -(K[t] + to_k @ P[t + 1] @ form.A_bar)  # b_t = to_b_m m_t - to_k p_{t+1}
        closed = (form.A - form.B @ K[t]).T
        m_m, m_p = form.A + form.A_bar + form.B @ to_b_m, -form.B @ to_k
        p_m, p_p = form.Q_m + form.Q_b @ to_b_m + closed @ P[t + 1] @ form.A_bar, closed - form.Q_b @ to_k
        rows_m, rows_p = m(t + 1), p(t)
        system[rows_m, m(t + 1)] = np.eye(d)
        system[rows_p, p(t)] = np.eye(d)
        right[rows_p] = form.q / unit
        if t > 0:
            system[rows_m, m(t)], system[rows_p, m(t)] = -m_m, -p_m / unit
        else:
            right[rows_m] += m_m @ form.m0
            right[rows_p] += p_m @ form.m0 / unit
        if t + 1 < T:
            system[rows_m, p(t + 1)], system[rows_p, p(t + 1)] = -m_p * unit, -p_p
    factors, pivots = _factorise(system)
    solution = linalg.lu_solve((factors, pivots), right)
    means = np.concatenate([form.m0, solution[: T * d]]).reshape(T + 1, d)
    adjoints = unit * np.concatenate([solution[T * d :], np.zeros(d)]).reshape(T + 1, d)
    pulls = np.einsum("tij,jk,tk->ti", P[1:], form.A_bar, means[:-1]) + adjoints[1:]
    offsets = np.stack([linalg.solve(W[t], form.B.T @ pulls[t], assume_a="pos") for t in range(T)])
    return means, -(np.einsum("tij,tj->ti", K, means[:-1]) + offsets)


def _factorise(system: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LU factors, after a look at the condition of the system."""
    rcond = 0.0
    if np.all(np.isfinite(system)):
        factors, pivots, info = linalg.lapack.dgetrf(system)
        if info == 0:
            rcond, _ = linalg.lapack.dgecon(factors, np.abs(system).sum(axis=0).max())
    if not rcond > SMALLEST_RCOND:
        raise ValueError(
            "there is no unique equilibrium that floating-point numbers can tell: the two-point boundary system of the "
            f"mean and its adjoint has reciprocal condition number {rcond:.1e}"
        )
    return factors, pivots


def _flow(form: Form, policy: AffinePolicy, m: np.ndarray | None = None) -> Gaussian:
    """The Gaussian flow of agents who play `policy` in a crowd of means m (T+1, d), their own if None."""
    means, covariances = [form.m0], [form.S0]
    for t in range(form.horizon):
        closed = form.A - form.B @ policy.K[t]
        crowd = means[t] if m is None else m[t]
        means.append(closed @ means[t] - form.B @ policy.k[t] + form.A_bar @ crowd)
        covariances.append(closed @ covariances[t] @ closed.T + form.S @ form.S.T)
    actions = -(np.einsum("tij,tj->ti", policy.K, np.stack(means[:-1])) + policy.k)
    return Gaussian(np.stack(means), np.stack(covariances), actions)


def _outside_box(game: Game, policy: AffinePolicy, crowd: Gaussian) -> float:
    """Union bound over t and coordinates on the probability that the policy's action leaves the box in that crowd."""
    assert crowd.mean_actions is not None
    variance = np.einsum("tij,tjk,tik->ti", policy.K, crowd.covariances[:-1], policy.K)
    std = np.sqrt(np.maximum(variance, 1e-300))
    above = norm.sf((game.action_high - crowd.mean_actions) / std)
    below = norm.sf((crowd.mean_actions - game.action_low) / std)
    return float(min(1.0, np.sum(above + below)))


def solve(game: Game) -> Equilibrium:
    """The equilibrium of a linear-quadratic game."""
    form = linear_quadratic_form(game)
    with np.errstate(all="ignore"):  # overflow is noticed
        m, b = _equilibrium_crowd(form)
    if not np.all(np.isfinite(m)):
        raise ValueError("there is no unique equilibrium that floating-point numbers can tell: the mean overflows")
    value = _respond(form, m, b)
    crowd = _flow(form, value.policy)
    # What is left of the boundary system's rounding: the best response to the crowd that the policy really makes.
    better = _respond(form, crowd.means, _mean_actions(crowd))
    return Equilibrium(
        policy=value.policy,
        mean_field=crowd,
        value=value.mean(form.m0, form.S0),
        exploitability=_affine_gap(value.policy, better),
        outside_box=_outside_box(game, value.policy, crowd),
        game=game,
        resolution_error=0.0,
    )


def _affine_gap(policy: AffinePolicy, best: _Value) -> float:
    """sum_t E (a - a*)'W_t (a - a*), exactly, where the gains are the best ones: the offsets alone make it."""
    off = policy.k - best.policy.k
    return float(np.einsum("ti,tij,tj->", off, best.W, off))


def best_response(game: Game, mean_field: MeanField) -> BestResponse:
    """The best policy in a frozen crowd, by Riccati; the action box is not part of it."""
    check_mean_field(game, mean_field)
    form = linear_quadratic_form(game)
    m = np.stack([mean_field.at(t).mean for t in range(form.horizon + 1)])
    if np.any(form.Q_b):
        b = np.stack([mean_field.at(t).mean_action for t in range(form.horizon)])
    else:
        b = np.zeros((form.horizon, form.B.shape[1]))  # not read, and not every mean field knows it
    value = _respond(form, m, b)
    outside = _outside_box(game, value.policy, _flow(form, value.policy, m))
    return BestResponse(value.policy, value.mean(form.m0, form.S0), outside)


def exploitability(game: Game, policy: Policy, num_agents: int, seed: int) -> Exploitability:
    """Of any policy, by the performance-difference identity; see `mfg_envs.equilibrium.exploitability`."""
    form = linear_quadratic_form(game)
    played = simulate(game, policy, num_agents=num_agents, seed=seed, antithetic=True)
    m = played.states.mean(axis=1)
    value = _respond(form, m, played.actions.mean(axis=1))
    gap = _gaps(value, played)
    pairs = gap.reshape(2, -1).mean(axis=0)  # mirrored agents are not independent, pairs of them are
    first = np.arange(num_agents) % (num_agents // 2) < num_agents // 4  # one half of the pairs
    half_crowds = [
        _respond(form, played.states[:, half].mean(axis=1), played.actions[:, half].mean(axis=1))
        for half in (first, ~first)
    ]
    responded = simulate(game, value.policy, played.mean_field(game), num_agents=num_agents, seed=seed, antithetic=True)
    best = value.mean(form.m0, form.S0)
    return Exploitability(
        value=float(gap.mean()),
        lower=float((responded.returns - played.returns).mean()),
        crowd_error=float(max(abs(_gaps(half, played).mean() - gap.mean()) for half in half_crowds)),
        resolution_error=0.0,
        policy_return=best - float(gap.mean()),
        best_response_return=best,
        stderr=float(pairs.std(ddof=1) / np.sqrt(len(pairs))),
        outside_box=_outside_box(game, value.policy, _flow(form, value.policy, m)),
    )


def _mean_actions(crowd: Gaussian) -> np.ndarray:
    assert crowd.mean_actions is not None
    return crowd.mean_actions


def _gaps(value: _Value, played: Trajectories) -> np.ndarray:
    """sum_t (a - a*)'W_t (a - a*) along each agent's path, (N,): what it lost by not responding best."""
    gap = np.zeros(played.actions.shape[1])
    for t, a in enumerate(played.actions):
        off = a - value.policy(t, played.states[t])
        gap += np.einsum("ni,ij,nj->n", off, value.W[t], off)
    return gap
