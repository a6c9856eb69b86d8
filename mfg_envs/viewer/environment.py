"""`render()` of the environments: the crowd as an array, or in a window."""

from __future__ import annotations

import numpy as np

from mfg_envs.envs import Crowd
from mfg_envs.mean_field import Distribution, Empirical
from mfg_envs.viewer.layout import FRAME, Layout
from mfg_envs.viewer.painter import Painter
from mfg_envs.viewer.players import Nothing, Player, title
from mfg_envs.viewer.pygame_ce import open_window, pygame
from mfg_envs.viewer.scene import Motion, Scene, space_time
from mfg_envs.viewer.session import common_stage, nash_means


class Viewer:
    """Draws the crowd of an environment as it is when it is asked to, in frames of 720 x 720.

    A game without a floor is shown where a crowd that does nothing goes, and further out when the agents are there.
    A space-time picture has the densities of those times that were drawn.

    Args:
        crowd: the environment's.
        fps: frames a second in a window, at most.
    """

    def __init__(self, crowd: Crowd, fps: int) -> None:
        self._crowd, self._fps = crowd, fps
        self._painter = Painter(Layout(FRAME, FRAME))
        self._stage = common_stage(crowd.game, [Player("doing nothing", Nothing(crowd.game))])
        self._seen: dict[int, Distribution] = {}
        self._rasters: dict[int, np.ndarray] = {}
        self._between_times: dict[int, np.ndarray] = {}
        self._nash = nash_means(crowd.game) if self._stage.dim == 1 else None
        self._window: pygame.Surface | None = None
        self._clock = pygame.time.Clock()
        self.closed = False

    def rgb_array(self) -> np.ndarray:
        """The picture, (720, 720, 3) uint8."""
        self._paint()
        return self._painter.pixels()

    def human(self) -> None:
        """Show the picture in a window. When the user has closed it, nothing is shown until `close`."""
        if self._window is None and not self.closed:
            self._window = open_window((FRAME, FRAME), title(self._crowd.game))
        if self._window is None:
            return
        self._paint()
        self._window.blit(self._painter.surface, (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        if pygame.event.get(pygame.QUIT):  # other events are not ours
            self.close()
            self.closed = True

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            pygame.display.quit()
        self._window, self.closed = None, False

    def _paint(self) -> None:
        crowd = self._crowd
        self._look()
        stage, t, played = self._stage, crowd.t, crowd.played
        assert t is not None
        motion = Motion.of(crowd)
        scene = Scene(
            stage=stage,
            title=title(crowd.game),
            facts=f"mean reward {played.rewards.mean():.3f}" if played is not None else "the start",
            time=float(t),
            agents=crowd.x[:, : stage.dim],
            tints=motion.tints("heading", None, stage),
            density=self._raster(t) if stage.dim == 2 else space_time(self._raster, t, self._between_times),
            mean=self._means(t) if stage.dim == 1 else None,
            nash=self._nash,
        )
        kind = "in each other's company" if crowd.mean_field is None else "each alone in a frozen crowd"
        left = f"t = {t}/{stage.horizon}    N = {crowd.num_agents:,}"
        self._painter.paint([scene], left, kind, t / stage.horizon)

    def _look(self) -> None:
        """Take note of the crowd as it is."""
        crowd, t = self._crowd, self._crowd.t
        assert t is not None
        for remembered in (self._seen, self._rasters, self._between_times):
            for later in [s for s in remembered if s >= t]:  # of an earlier episode, or drawn before
                remembered.pop(later)
        if crowd.mean_field is not None:
            self._seen[t] = crowd.mean_field.at(t)
        else:
            bandwidth = crowd.bandwidth if crowd.game.dim <= 2 else None
            self._seen[t] = Empirical(crowd.x, floor=crowd.game.floor, bandwidth=bandwidth)
        grown = self._stage.grown(crowd.x)
        if grown != self._stage:
            self._stage, self._rasters, self._between_times = grown, {}, {}

    def _raster(self, t: int) -> np.ndarray:
        if t not in self._seen:
            return np.zeros(len(self._stage.raster))
        if t not in self._rasters:
            self._rasters[t] = self._stage.density(self._seen[t])
        return self._rasters[t]

    def _means(self, t: int) -> np.ndarray:
        means = np.array([float(self._seen[s].mean[0]) if s in self._seen else np.nan for s in range(t + 1)])
        known = np.flatnonzero(~np.isnan(means))
        return np.interp(np.arange(t + 1), known, means[known])
