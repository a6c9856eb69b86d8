"""The one place that imports pygame: pygame-ce, which shares its name with pygame, and no other."""

import os
import sys

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
NEEDED = "drawing needs pygame-ce: pip install 'mfg-envs[render]'"

try:
    import pygame
except ModuleNotFoundError as error:
    raise ImportError(NEEDED) from error
if not getattr(pygame, "IS_CE", False):
    raise ImportError(f"{NEEDED}, and uninstall pygame, which has the same name")


def start_display() -> None:
    """Initialise pygame's display, and nothing else of it.

    Raises:
        pygame.error: if there is none. (SDL alone would draw into nowhere then, unless told which driver to use.)
    """
    chosen = "SDL_VIDEODRIVER" in os.environ
    if sys.platform == "linux" and not chosen and "WAYLAND_DISPLAY" not in os.environ:
        if "DISPLAY" not in os.environ:
            raise pygame.error("there is no display to open a window on (films and pictures need none)")
        os.environ["SDL_VIDEODRIVER"] = "x11"
    try:
        pygame.display.init()
    except pygame.error as error:
        raise pygame.error(f"there is no display to open a window on: {error}") from None
    finally:
        if not chosen:
            os.environ.pop("SDL_VIDEODRIVER", None)


def open_window(size: tuple[int, int], caption: str, flags: int = 0) -> pygame.Surface:
    """Open the one window.

    Raises:
        pygame.error: if there is no display.
    """
    start_display()
    pygame.display.set_caption(caption)
    return pygame.display.set_mode(size, flags)


def desktop() -> tuple[int, int]:
    """Width and height of the screen, once the display is started."""
    return pygame.display.get_desktop_sizes()[0]


__all__ = ["desktop", "open_window", "pygame", "start_display"]
