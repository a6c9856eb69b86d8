"""What is to be drawn at one moment, as plain arrays: painters read it, sessions and environments write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mfg_envs.envs import Crowd
from mfg_envs.viewer.palette import amount_tints, heading_tints
from mfg_envs.viewer.stage import Stage, columns_between

Quantity = Literal["heading", "speed", "reward"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
Scale = tuple[float, float]

STILL = 1e-6  # of the view: what moves less has no heading


@dataclass(frozen=True, eq=False)
class Scene:
    """One panel of a picture.

    Attributes:
        stage: what is shown of the state space.
        title, facts: the two lines above the panel.
        time: where between 0 and T it is, whole or not.
        agents: (N, dim) places.
        tints: (N,) rows of `palette.AGENTS`.
        quantity: what the tints mean.
        scale: amounts of the first and the last colour; None for headings.
        density: (CELLS, CELLS) of a map, (columns, CELLS) of a space-time picture, FINER columns a step from t = 0 on;
            None to leave it out.
        paths: (steps, n, dim) where some agents were at the whole times up to now, oldest first; None for no trails.
        mean: (t+1,) the crowd's mean state at t = 0, 1, ... in a space-time picture.
        nash: (T+1,) the equilibrium's mean state in a space-time picture, where it is known.
        chosen: row of the agent that is played by hand, if any.
        pull: (dim,) where that agent is being pulled to, if it is.
        note: lines in the corner of the panel.
    """

    stage: Stage
    title: str
    facts: str
    time: float
    agents: np.ndarray
    tints: np.ndarray
    quantity: Quantity = "heading"
    scale: Scale | None = None
    density: np.ndarray | None = None
    paths: np.ndarray | None = None
    mean: np.ndarray | None = None
    nash: np.ndarray | None = None
    chosen: int | None = None
    pull: np.ndarray | None = None
    note: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Motion:
    """How agents moved in the last step, and what they got for it.

    Attributes:
        drift: (N, d), the step without its noise, which shows what the agents are up to; zeros at t = 0.
        rewards: (N,); zeros at t = 0.
    """

    drift: np.ndarray
    rewards: np.ndarray

    @staticmethod
    def of(crowd: Crowd) -> Motion:
        """The last step of a crowd."""
        if crowd.played is None:
            return Motion(np.zeros_like(crowd.x), np.zeros(len(crowd.x)))
        t, x, a, mu, rewards = crowd.played
        return Motion(crowd.game.step(t, x, a, mu, np.zeros_like(x)) - x, rewards)

    def select(self, rows: np.ndarray) -> Motion:
        """That of these agents, (m,) indices that may repeat."""
        return Motion(self.drift[rows], self.rewards[rows])

    def amounts(self, quantity: Quantity) -> np.ndarray | None:
        """Speeds (the length of the drift, a step) or rewards, (N,); None for headings."""
        if quantity == "heading":
            return None
        return np.linalg.norm(self.drift, axis=1) if quantity == "speed" else self.rewards

    def tints(self, quantity: Quantity, scale: Scale | None, stage: Stage) -> np.ndarray:
        """Rows of `palette.AGENTS`, (N,)."""
        amounts = self.amounts(quantity)
        if amounts is None or scale is None:
            return heading_tints(self.drift, STILL * (stage.high[0] - stage.low[0]))
        return amount_tints(amounts, *scale)


def space_time(columns: Callable[[int], np.ndarray], t: int, known: dict[int, np.ndarray]) -> np.ndarray:
    """The density of a space-time picture up to t, from columns at whole times; `known` remembers those between."""
    for s in range(1, t + 1):
        if s not in known:
            known[s] = columns_between(columns(s - 1), columns(s))
    return np.concatenate([columns(0)[None], *(known[s] for s in range(1, t + 1))])


def common_scale(motions: list[Motion], quantity: Quantity) -> Scale | None:
    """Amounts of the first and the last colour for all of these crowds; None for headings."""
    amounts = [a for a in (motion.amounts(quantity) for motion in motions) if a is not None]
    if not amounts:
        return None
    low, high = np.quantile(np.concatenate(amounts), [0.02, 0.98])
    return (0.0 if quantity == "speed" else float(low)), float(high)
