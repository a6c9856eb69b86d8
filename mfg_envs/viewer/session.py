"""The play: agents in a crowd, step by step, forwards and back, with one of them in the user's hand. No drawing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mfg_envs.envs import Crowd, Policy, simulate
from mfg_envs.envs.core import check_mean_field
from mfg_envs.equilibrium import solve
from mfg_envs.equilibrium.linear_quadratic import has_closed_form
from mfg_envs.games import Game
from mfg_envs.mean_field import Distribution, Empirical, MeanField
from mfg_envs.viewer.players import Player
from mfg_envs.viewer.scene import Motion, Quantity, Scale, Scene, space_time
from mfg_envs.viewer.stage import Stage, stage_of

FEWEST, MOST = 100, 10_000  # agents, by keys
PILOTS = 500  # agents that show how far a game without a floor reaches
HANDFUL = 20  # agents that a click drops
HANDFUL_WIDTH = 0.015  # their standard deviation, of the view
PATHS = 60  # agents whose paths a scene has


@dataclass(frozen=True, eq=False)
class Hand:
    """The agent that is played by hand: its row, since when, its return and the mean one of the others since then."""

    row: int
    since: int
    own: float = 0.0
    others: float = 0.0


@dataclass(frozen=True, eq=False)
class Moment:
    """All that a step changes, for stepping back. `path[s]` is where the agents of now were at s, NaN if not there."""

    path: tuple[np.ndarray, ...]
    actions: tuple[np.ndarray, ...]
    returns: np.ndarray
    motion: Motion
    hand: Hand | None
    policy: Policy
    noise: tuple[Mapping[str, Any], Mapping[str, Any]]


class Session:
    """One player's agents, from t = 0 to T.

    Args:
        game: the game.
        player: who moves the agents.
        num_agents: N, at the start.
        seed: of the noise and of the policy's draws.
        stage: what is shown; None for what the player's agents need.
        nash: (T+1,) the equilibrium's mean state, to be shown where it is known.

    Attributes:
        crowd: the agents.
        motion: how they moved in the last step.
        returns: (N,) what each has got so far; NaN for who was dropped, without a whole game played.
        hand: the agent that is played by hand, None if there is none.
        target: where that agent is being pulled to, (dim,) of the stage; None when it is let go.

    Raises:
        ValueError: if `num_agents` is not a positive integer, or the player's equilibrium is of another horizon.
    """

    def __init__(
        self,
        game: Game,
        player: Player,
        num_agents: int = 1000,
        seed: int = 0,
        stage: Stage | None = None,
        nash: np.ndarray | None = None,
    ) -> None:
        self.game, self.player, self.seed, self.nash = game, player, seed, nash
        self.stage = stage or common_stage(game, [player])
        if self.loaded is not None:
            check_mean_field(game, self.loaded)
        self.num_agents, self.crowd = num_agents, Crowd(game, num_agents)
        self._crowds: dict[int, Empirical] = {}
        self._rasters: dict[int, np.ndarray] = {}
        self._between_times: dict[int, np.ndarray] = {}
        self.reset()

    # --- the play ----------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> None:
        """Start anew, without those who were dropped, with a new seed if one is given."""
        self.seed = self.seed if seed is None else seed
        self._rng = np.random.default_rng(self.seed)
        self._policy_rng = self._rng.spawn(1)[0]
        self._policy = copy.copy(self.player.policy)
        self.crowd = Crowd(self.game, self.num_agents, self.crowd.mean_field)
        self.crowd.reset(self._rng)
        if hasattr(self._policy, "reset"):
            self._policy.reset(self.num_agents, self._policy_rng)
        self._path: tuple[np.ndarray, ...] = (self.crowd.x,)
        self._actions: tuple[np.ndarray, ...] = ()
        self.returns = np.zeros(self.num_agents)
        self.motion = Motion.of(self.crowd)
        self.hand: Hand | None = None
        self.target: np.ndarray | None = None
        self._past: list[Moment] = []
        self.forget()

    def step(self) -> bool:
        """Everybody acts; False at T, where nothing happens."""
        crowd, game, t = self.crowd, self.game, self.t
        if crowd.done:
            return False
        before = self._moment()
        a = np.array(self._policy(t, crowd.x.copy()), dtype=np.float64)
        if self.hand is not None and self.target is not None:
            a[self.hand.row] = steer(game, t, crowd.x[self.hand.row], self.target, self._everyone(a))
        rewards = crowd.step(a)
        self._past.append(before)
        self.motion = Motion.of(crowd)
        self._path, self._actions = (*self._path, crowd.x), (*self._actions, game.project_action(a))
        self.returns = self.returns + rewards
        if self.hand is not None:
            own = float(rewards[self.hand.row])
            others = (float(rewards.sum()) - own) / max(len(rewards) - 1, 1)
            self.hand = replace(self.hand, own=self.hand.own + own, others=self.hand.others + others)
        return True

    def back(self) -> bool:
        """Undo the last step; False at t = 0, where nothing happens."""
        if not self._past:
            return False
        moment = self._past.pop()
        self._path, self._actions = moment.path, moment.actions
        self._rng.bit_generator.state, self._policy_rng.bit_generator.state = moment.noise
        self._policy, self.returns, self.motion, self.hand = moment.policy, moment.returns, moment.motion, moment.hand
        self._seat(self._path[-1], len(self._path) - 1)
        self.target = None if self.hand is None else self.target
        self.forget()
        return True

    def _moment(self) -> Moment:
        noise = self._rng.bit_generator.state, self._policy_rng.bit_generator.state
        policy = copy.copy(self._policy)
        return Moment(self._path, self._actions, self.returns, self.motion, self.hand, policy, noise)

    def _seat(self, x: np.ndarray, t: int) -> None:
        """Put agents at x (N, d) at time t."""
        crowd = Crowd(self.game, len(x), self.crowd.mean_field)
        crowd.reset(self._rng, x)
        crowd.t, self.crowd = t, crowd

    def forget(self, t: int = 0) -> None:
        """Make crowds and densities from t on again when they are next asked for."""
        for known in (self._crowds, self._rasters, self._between_times):
            for s in [s for s in known if s >= t]:
                known.pop(s)

    # --- what the user does ------------------------------------------------------------------------------------------

    def resize(self, num_agents: int) -> None:
        """Go on with another number of agents, 100 to 10,000: some leave, or copies of some join them."""
        n, wanted = self.crowd.num_agents, int(np.clip(num_agents, FEWEST, MOST))
        self.num_agents = wanted
        rows = np.arange(n)
        if wanted <= n:
            rows = rows[:wanted]
        else:  # whoever joins has the past of another, so that the law of the crowd stays what it is
            rows = np.append(rows, np.random.default_rng([self.seed, self.t, wanted]).integers(n, size=wanted - n))
        if self.hand is not None and self.hand.row >= wanted:
            self.hand = self.target = None
        self._keep(rows)

    def drop(self, place: np.ndarray) -> int:
        """Drop a handful of agents at a place (dim,) of the stage: how many, 0 in walls, outside or if there are most.

        They play on from there, but have no return of a whole game and do not count in the mean.
        """
        n, rng = self.crowd.num_agents, np.random.default_rng([self.seed, self.t, self.crowd.num_agents])
        count, dim = min(HANDFUL, MOST - n), self.stage.dim
        if count <= 0:
            return 0
        x = np.tile(self.crowd.x.mean(axis=0), (count, 1))
        x[:, :dim] = place
        if not self.game.contains(x[:1])[0]:
            return 0
        width = HANDFUL_WIDTH * np.subtract(self.stage.high, self.stage.low)
        spread = np.zeros_like(x)
        spread[:, :dim] = rng.standard_normal((count, dim)) * width
        x = self.game.floor.reflect(x, spread) if self.game.floor is not None else x + spread
        self._keep(np.append(np.arange(n), rng.integers(n, size=count)))
        past = (_with_last(before, count, np.nan) for before in self._path[:-1])
        self._path = (*past, _with_last(self._path[-1], count, x))
        self.returns = _with_last(self.returns, count, np.nan)
        self._seat(self._path[-1], self.t)
        self.motion = Motion(_with_last(self.motion.drift, count, 0), _with_last(self.motion.rewards, count, 0))
        return count

    def grab(self, place: np.ndarray) -> None:
        """Take the agent nearest to a place (dim,) in hand."""
        extent = np.subtract(self.stage.high, self.stage.low)
        distance = np.linalg.norm((self.crowd.x[:, : self.stage.dim] - place) / extent, axis=1)
        row = int(distance.argmin())
        if self.hand is None or self.hand.row != row:
            self.hand = Hand(row, self.t)

    def pull(self, place: np.ndarray | None) -> None:
        """Pull the agent in hand towards a place (dim,) of the stage; None lets it go, to play the policy again."""
        self.target = place if self.hand is not None else None

    def switch_crowd(self) -> bool:
        """Exchange the agents' own crowd for the loaded mean field and back; False if none is loaded."""
        if self.loaded is None:
            return False
        self.crowd.mean_field = None if self.crowd.mean_field is not None else self.loaded
        self.forget()
        return True

    def _keep(self, rows: np.ndarray) -> None:
        """Go on with these agents, (m,) indices that may repeat."""
        if hasattr(self._policy, "select"):
            self._policy.select(rows)
        self._path = tuple(x[rows] for x in self._path)
        self._actions = tuple(a[rows] for a in self._actions)
        self.returns = self.returns[rows]
        self.motion = self.motion.select(rows)
        self._seat(self._path[-1], self.t)
        self.forget()

    # --- what there is to see ----------------------------------------------------------------------------------------

    @property
    def t(self) -> int:
        """The present time."""
        assert self.crowd.t is not None
        return self.crowd.t

    @property
    def done(self) -> bool:
        """Whether the horizon is reached."""
        return self.crowd.done

    @property
    def loaded(self) -> MeanField | None:
        """The mean field of the player's equilibrium."""
        return None if self.player.equilibrium is None else self.player.equilibrium.mean_field

    @property
    def mean_return(self) -> float:
        """What the agents that play from the start have got so far, on average."""
        return float(np.nanmean(self.returns))

    def at(self, t: int) -> Distribution:
        """The crowd that the agents live in, at a time up to now; later ones only if it is the loaded one."""
        return self._own(t) if self.crowd.mean_field is None else self.crowd.mean_field.at(t)

    def _own(self, t: int) -> Empirical:
        """The agents as a crowd at a time up to now."""
        if t not in self._crowds or (self._crowds[t].a is None and t < self.t):  # they have acted since
            there = ~np.isnan(self._path[t][:, 0])
            a = self._actions[t][there] if t < self.t else None
            self._crowds[t] = Empirical(self._path[t][there], a, self.game.floor)
        return self._crowds[t]

    def _everyone(self, a: np.ndarray) -> Distribution:
        if self.crowd.mean_field is not None:
            return self.crowd.mean_field.at(self.t)
        return Empirical(self.crowd.x, self.game.project_action(a), self.game.floor)

    def probe(self, place: np.ndarray, t: int) -> tuple[float | None, float | None]:
        """Density at a place (dim,) and time, and the reward there of doing nothing; None for what is not known.

        In more than two dimensions there is a density (of the two that are shown) but no reward.
        """
        if t < 0 or t > self.game.horizon or (t > self.t and self.crowd.mean_field is None):
            return None, None
        game, mu, floor = self.game, self.at(t), self.stage.floor
        if floor is not None and not floor.contains(place[None])[0]:
            return None, None
        density = float(self.stage.density_at(mu, place[None])[0])
        if game.dim > 2:
            return density, None
        try:
            if t == game.horizon:
                return density, float(game.terminal_reward(place[None], mu)[0])
            idle = game.project_action((game.action_low + game.action_high)[None] / 2)
            return density, float(game.reward(t, place[None], idle, mu)[0])
        except ValueError:  # it reads what is not known yet: the mean action of a crowd that has not acted
            return density, None

    def raster(self, t: int) -> np.ndarray:
        """Density of the crowd at t on the stage's raster."""
        if t not in self._rasters:
            self._rasters[t] = self.stage.density(self.at(t))
        return self._rasters[t]

    @property
    def gap(self) -> str:
        """The exploitability of the policy, where it is known."""
        if self.player.equilibrium is None:
            return ""
        gap = self.player.equilibrium.exploitability
        return f"exploitability {0 if abs(gap) < 1e-9 else gap:.2g}"  # of closed forms: rounding

    def scene(
        self,
        phase: float = 1.0,
        quantity: Quantity = "heading",
        scale: Scale | None = None,
        density: bool = True,
        trails: bool = False,
    ) -> Scene:
        """What is to be seen when the part `phase` in [0, 1] of the last step is done."""
        stage, t = self.stage, self.t
        dim = stage.dim
        here, time = self._path[-1][:, :dim], float(t)
        if t > 0 and phase < 1:
            here, time = self._between(self._path[-2][:, :dim], here, phase), t - 1 + phase
        raster = None
        if density and dim == 1:
            raster = space_time(self.raster, t, self._between_times)
        elif density:
            raster = self.raster(t)
            if t > 0 and phase < 1:
                raster = (1 - phase) * self.raster(t - 1) + phase * raster
        note: tuple[str, ...] = ()
        if self.hand is not None:
            note = (f"you {self.hand.own:.2f}", f"the others {self.hand.others:.2f}", f"since t = {self.hand.since}")
        past = self._path[:-1]
        mean = None
        if dim == 1:
            mean = np.array([np.nanmean(x[:, 0]) for x in self._path])
            mean[t] = here[:, 0].mean()
        return Scene(
            stage=stage,
            title=self.player.name,
            facts="    ".join(filter(None, [f"return {self.mean_return:.2f}", self.gap])),
            time=time,
            agents=here,
            tints=self.motion.tints(quantity, scale, stage),
            quantity=quantity,
            scale=scale,
            density=raster,
            paths=np.stack([x[:PATHS, :dim] for x in past]) if trails and past else None,
            mean=mean,
            nash=self.nash,
            chosen=None if self.hand is None else self.hand.row,
            pull=self.target,
            note=note,
        )

    def _between(self, before: np.ndarray, here: np.ndarray, phase: float) -> np.ndarray:
        """Part of the way; whoever went around a corner is at the nearer end of the step, not in the wall."""
        nearer = before if phase < 0.5 else here
        between = (1 - phase) * before + phase * here
        if self.stage.floor is not None:
            inside = self.stage.floor.contains(between)
            between = np.where(inside[:, None], between, nearer)
        return np.where(np.isnan(between), here, between)


def sessions(game: Game, players: Sequence[Player], num_agents: int = 1000, seed: int = 0) -> list[Session]:
    """A session for each player, on one stage, with the same noise.

    Raises:
        ValueError: as `Session` does.
    """
    stage = common_stage(game, players)
    nash = nash_means(game, players) if stage.dim == 1 else None
    return [Session(game, player, num_agents, seed, stage, nash) for player in players]


def common_stage(game: Game, players: Sequence[Player]) -> Stage:
    """One stage on which all of these players can be seen."""
    if game.floor is not None and game.dim <= 2:
        return stage_of(game, np.empty((0, game.dim)))
    crowds = [simulate(game, copy.copy(player.policy), num_agents=PILOTS, seed=0).states for player in players]
    return stage_of(game, np.concatenate(crowds).reshape(-1, game.dim))


def nash_means(game: Game, players: Sequence[Player] = ()) -> np.ndarray | None:
    """Mean states of the equilibrium, (T+1,), of a game on the line: in closed form, or the best of the players'."""
    known = [player.equilibrium for player in players if player.equilibrium is not None]
    if has_closed_form(game):
        with suppress(ValueError):  # there is none, or not a unique one
            known = [solve(game)]
    if not known:
        return None
    best = min(known, key=lambda equilibrium: equilibrium.exploitability)
    return np.array([float(best.mean_field.at(t).mean[0]) for t in range(game.horizon + 1)])


def steer(game: Game, t: int, x: np.ndarray, target: np.ndarray, mu: Distribution) -> np.ndarray:
    """The action whose noiseless step leads nearest to a target, projected: x (d,), target (dim,) -> (k,).

    How actions move the agent is read off `game.step` by differences, so it works in any game.
    """
    idle = game.project_action((game.action_low + game.action_high)[None] / 2)
    nudge = 1e-4 * (game.action_high - game.action_low)
    actions = np.concatenate([idle, idle + np.diag(nudge)])
    ends = game.step(t, np.tile(x, (len(actions), 1)), actions, mu, np.zeros((len(actions), game.dim)))
    gain = (ends[1:] - ends[0]).T / nudge  # (d, k)
    shown = slice(len(target))
    wanted = idle[0] + np.linalg.lstsq(gain[shown], target - ends[0, shown], rcond=None)[0]
    return game.project_action(wanted[None])[0]


def _with_last(x: np.ndarray, count: int, value: Any) -> np.ndarray:
    """A copy of x with other last rows."""
    x = x.copy()
    x[-count:] = value
    return x
