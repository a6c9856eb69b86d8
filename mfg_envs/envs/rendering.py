"""What both shells do about `render_mode`. pygame is loaded when something is drawn for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from mfg_envs.envs.core import Crowd

if TYPE_CHECKING:
    from mfg_envs.viewer.environment import Viewer


class Rendering:
    """The render mode of an environment, and its viewer as soon as there is one, which pickles and copies drop.

    Args:
        mode: None, or one of the metadata's render modes.
        metadata: the environment's.

    Raises:
        ValueError: for another mode.
    """

    def __init__(self, mode: str | None, metadata: dict[str, Any]) -> None:
        if mode is not None and mode not in metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or one of {metadata['render_modes']}, got {mode!r}")
        self.mode, self.fps = mode, metadata["render_fps"]
        self.viewer: Viewer | None = None

    def render(self, crowd: Crowd) -> np.ndarray | None:
        """A picture in the mode "rgb_array"; None, after showing it, in the mode "human"."""
        if self.mode is None:
            gymnasium.logger.warn("render() draws nothing: the environment was made with render_mode=None")
            return None
        if crowd.t is None:
            raise ResetNeeded("call reset() first")
        if self.viewer is None:
            from mfg_envs.viewer.environment import Viewer

            self.viewer = Viewer(crowd, self.fps)
        if self.mode == "rgb_array":
            return self.viewer.rgb_array()
        self.viewer.human()
        return None

    def follow(self, crowd: Crowd) -> None:
        """After a reset or a step: show it, if there is a window."""
        if self.mode == "human":
            self.render(crowd)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self.viewer is not None:
            self.viewer.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "viewer": None}
