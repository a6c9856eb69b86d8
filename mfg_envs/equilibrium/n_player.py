"""From the mean field to N players: what one of N gains by leaving a policy that all others keep. Ours."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from mfg_envs.equilibrium.linear_quadratic import Form, linear_quadratic_form
from mfg_envs.equilibrium.results import AffinePolicy
from mfg_envs.games import Game


def n_player_gap(game: Game, policy: AffinePolicy, num_agents: int) -> float:
    """The gain of the best deviation of one agent in the N-player game in which the other N-1 play `policy`. Exact.

    The deviator sees its own state and the mean state of the others, which is all there is to know, and counts in the
    crowd's means itself. Against the mean field the gain at equilibrium is zero; in the N-player game it is of the
    order of 1/N times what one agent's weight in the means is worth. The action box is not part of it.

    The pair y = (own state, mean of the others) is linear in the deviator's action and the reward quadratic in both, so
    one Riccati recursion on y gives the best deviation, and the performance-difference identity gives what it gains:
    sum_t E (a - a*)' W_t (a - a*) while everybody, the deviator too, plays `policy`.

    Args:
        game: a linear-quadratic game.
        policy: an affine policy, such as `solve(game).policy`.
        num_agents: N, at least 2.

    Raises:
        TypeError: for another game or another policy.
        ValueError: if `num_agents` is below 2.
    """
    if not isinstance(policy, AffinePolicy):
        raise TypeError(f"policy must be an AffinePolicy, got {type(policy).__name__}")
    if not isinstance(num_agents, (int, np.integer)) or num_agents < 2:
        raise ValueError(f"num_agents must be an integer of at least 2, got {num_agents!r}")
    form, N = linear_quadratic_form(game), int(num_agents)
    d = len(form.m0)
    own, everyone = np.eye(d, 2 * d), np.hstack([np.eye(d), (N - 1) * np.eye(d)]) / N  # y to x, y to the mean of all
    B = np.vstack([form.B, 0 * form.B])
    # Backwards: the best deviation a* = -(G_t y + g_t), and W_t.
    P, p = own.T @ form.Q_T @ own, np.zeros(2 * d)
    best = []
    for t in reversed(range(form.horizon)):
        A, c = _pair_dynamics(form, policy, t, own, everyone)
        others = (1 - 1 / N) * np.hstack([0 * policy.K[t], policy.K[t]])  # their share of the mean action is -others y
        cross = own.T @ (form.Q_m @ everyone - form.Q_b @ others)
        Q = own.T @ form.Q @ own + cross + cross.T + everyone.T @ form.H @ everyone
        q = own.T @ (form.q - (1 - 1 / N) * form.Q_b @ policy.k[t])
        mixed = form.Q_b.T @ own / N  # the deviator's own share of the mean action
        W = form.R + B.T @ P @ B
        G = linalg.solve(W, B.T @ P @ A + mixed, assume_a="pos")
        g = linalg.solve(W, B.T @ (P @ c + p), assume_a="pos")
        best.append((W, G, g))
        p = q + A.T @ (P @ c + p) - G.T @ W @ g
        P = Q + A.T @ P @ A - G.T @ W @ G
        P = (P + P.T) / 2
    # Forwards: everybody plays the policy.
    mean = np.concatenate([form.m0, form.m0])
    covariance = linalg.block_diag(form.S0, form.S0 / (N - 1))
    noise = linalg.block_diag(form.S @ form.S.T, form.S @ form.S.T / (N - 1))
    gap = 0.0
    for t, (W, G, g) in enumerate(reversed(best)):
        K = policy.K[t] @ own
        off, offset = G - K, g - policy.k[t] + (G - K) @ mean
        gap += float(np.sum(W * (off @ covariance @ off.T)) + offset @ W @ offset)
        A, c = _pair_dynamics(form, policy, t, own, everyone)
        conforming = A - B @ K
        mean = conforming @ mean + c - B @ policy.k[t]
        covariance = conforming @ covariance @ conforming.T + noise
    return gap


def _pair_dynamics(
    form: Form, policy: AffinePolicy, t: int, own: np.ndarray, everyone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A and c of y' = A y + B a + c + noise, y = (own state, mean of the others), who play the policy."""
    d = len(form.m0)
    others = np.hstack([np.zeros((d, d)), form.A - form.B @ policy.K[t]])
    A = np.vstack([form.A @ own + form.A_bar @ everyone, others + form.A_bar @ everyone])
    return A, np.concatenate([np.zeros(d), -form.B @ policy.k[t]])
