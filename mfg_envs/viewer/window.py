"""The interactive window: keys and mouse to sessions, sessions to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mfg_envs.viewer.layout import FRAME, GAP, LEAST_UNIT, SIDE, Axes, Layout
from mfg_envs.viewer.painter import Painter
from mfg_envs.viewer.players import title
from mfg_envs.viewer.pygame_ce import desktop, open_window, pygame, start_display
from mfg_envs.viewer.scene import QUANTITIES, Scene, common_scale
from mfg_envs.viewer.session import Session

FPS = 60
SPEEDS = (1, 2, 4, 8, 15, 30, 60)  # steps a second
NUMBERS = (100, 200, 500, 1000, 2000, 5000, 10_000)  # of agents
MOST_STEPS = 4  # in one frame: a slow machine falls behind rather than stands still
CLICK = 4  # pixels: whoever moves the mouse further with the button down, drags
MESSAGE_SECONDS = 2.0
SMALLEST = (480, 360)
TINY = 1e-6  # a density that is shown as 0

KEYS = (
    "Space\tpause, go on; at the end, play again",
    "Right, Left\tone step on, one back",
    "Up, Down\tfaster, slower",
    "R, Shift-R\tfrom the start; with new noise",
    "D\tdensity on and off",
    "C\tagents by heading, speed or reward",
    "+, -\tmore agents, fewer",
    "M\tthe agents' own crowd, or the loaded mean field",
    "T\ttrails on and off",
    "S\tsave a picture",
    "H, ?\tthese keys",
    "Q, Esc\tquit",
    "point\tdensity, and the reward of doing nothing there",
    "click\tdrop a handful of agents",
    "drag\tplay one agent by hand",
)


class Window:
    """A window on one session, or on several side by side, which run in step.

    Args:
        sessions: of one game and one seed.
        speed: steps a second.
        folder: where pictures are saved.

    Raises:
        pygame.error: if there is no display.
    """

    def __init__(self, sessions: Sequence[Session], speed: float = 8, folder: Path = Path()) -> None:
        self.sessions, self.speed, self.folder = list(sessions), speed, folder
        self.paused = self.trails = self.help = self.closed = False
        self.density, self.phase, self.quantity = True, 1.0, 0
        self.pointer: tuple[int, int] | None = None
        self._press: tuple[int, tuple[int, int]] | None = None  # panel and place of a button that is down
        self._dragging = False
        self._message, self._message_left = "", 0.0
        self._clock = pygame.time.Clock()
        start_display()
        width, height = FRAME + (len(self.sessions) - 1) * (SIDE + GAP), FRAME
        share = min(1.0, *(0.95 * room / size for room, size in zip(desktop(), (width, height), strict=True)))
        size = round(share * width), round(share * height)
        self._screen = open_window(size, title(self.sessions[0].game), pygame.RESIZABLE)
        pygame.key.set_repeat(350, 60)
        self._resize(self._screen.get_size())

    def run(self) -> None:
        """Play until the window is closed."""
        try:
            while not self.closed:
                for event in pygame.event.get():
                    self.handle(event)
                self.advance(self._clock.tick(FPS) / 1000)
                self.draw()
        finally:
            pygame.display.quit()

    # --- time --------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let this much time go by."""
        self._message_left -= seconds
        if self.paused:
            return
        self.phase += min(seconds * self.speed, MOST_STEPS)
        while self.phase >= 1:
            if self.sessions[0].done:
                self.phase = 1.0
                return
            self._step()
            self.phase -= 1

    def _step(self) -> None:
        for session in self.sessions:
            session.step()

    # --- events ------------------------------------------------------------------------------------------------------

    def handle(self, event: pygame.Event) -> None:
        """Do what a key, the mouse or the window asks for."""
        if event.type == pygame.QUIT:
            self.closed = True
        elif event.type == pygame.VIDEORESIZE:
            self._resize(event.size)
        elif event.type == pygame.KEYDOWN:
            self._key(event)
        elif event.type == pygame.MOUSEMOTION:
            self._move(event.pos)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            panel = self._panel(event.pos)
            self._press = None if panel is None else (panel, event.pos)
        elif event.type == pygame.MOUSEBUTTONUP and event.button == 1:
            self._release(event.pos)
        elif event.type == pygame.WINDOWLEAVE:
            self.pointer = None

    def _key(self, event: pygame.Event) -> None:
        by_character = {"?": self._help, "+": self._more, "=": self._more, "-": self._fewer}
        by_key: dict[int, Callable[[], None]] = {
            pygame.K_SPACE: self._pause,
            pygame.K_RIGHT: self._forwards,
            pygame.K_LEFT: self._backwards,
            pygame.K_UP: lambda: self._faster(1),
            pygame.K_DOWN: lambda: self._faster(-1),
            pygame.K_r: lambda: self._restart(new=bool(event.mod & pygame.KMOD_SHIFT)),
            pygame.K_d: self._toggle_density,
            pygame.K_c: self._next_quantity,
            pygame.K_PLUS: self._more,
            pygame.K_KP_PLUS: self._more,
            pygame.K_MINUS: self._fewer,
            pygame.K_KP_MINUS: self._fewer,
            pygame.K_m: self._switch_crowd,
            pygame.K_t: self._toggle_trails,
            pygame.K_s: self.save,
            pygame.K_h: self._help,
            pygame.K_q: self._quit,
            pygame.K_ESCAPE: self._quit,
        }
        action = by_character.get(getattr(event, "unicode", "")) or by_key.get(event.key)
        if action is not None:
            action()

    def _pause(self) -> None:
        if self.sessions[0].done and self.phase >= 1:
            self._restart(new=False)
            self.paused = False
        else:
            self.paused = not self.paused

    def _forwards(self) -> None:
        self.paused = True
        if self.phase >= 1:
            self._step()
        self.phase = 1.0

    def _backwards(self) -> None:
        self.paused, self.phase = True, 1.0
        for session in self.sessions:
            session.back()

    def _faster(self, by: int) -> None:
        nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(max(nearest + by, 0), len(SPEEDS) - 1)]
        self._say(f"{self.speed} steps a second")

    def _restart(self, new: bool) -> None:
        for session in self.sessions:
            session.reset(session.seed + 1 if new else None)
        self.phase, self._press, self._dragging = 1.0, None, False
        self._say(f"from the start, seed {self.sessions[0].seed}")

    def _toggle_density(self) -> None:
        self.density = not self.density

    def _toggle_trails(self) -> None:
        self.trails = not self.trails

    def _next_quantity(self) -> None:
        self.quantity = (self.quantity + 1) % len(QUANTITIES)
        self._say(f"agents by {QUANTITIES[self.quantity]}")

    def _more(self) -> None:
        n = self.sessions[0].crowd.num_agents
        self._number(next((m for m in NUMBERS if m > n), NUMBERS[-1]))

    def _fewer(self) -> None:
        n = self.sessions[0].crowd.num_agents
        self._number(next((m for m in reversed(NUMBERS) if m < n), NUMBERS[0]))

    def _number(self, wanted: int) -> None:
        for session in self.sessions:
            session.resize(wanted)
        self._say(f"{wanted:,} agents")

    def _switch_crowd(self) -> None:
        switched = [session.switch_crowd() for session in self.sessions]
        self._say(f"in {self._whose()}" if any(switched) else "no mean field is loaded")

    def _help(self) -> None:
        self.help = not self.help

    def _quit(self) -> None:
        self.closed = True

    def save(self) -> None:
        """Save what is to be seen, without boxes, as a PNG with a name of its own."""
        game, t = type(self.sessions[0].game).__name__, self.sessions[0].t
        number, path = 1, self.folder / f"{game}-t{t:03d}.png"
        while path.exists():
            number += 1
            path = self.folder / f"{game}-t{t:03d}-{number}.png"
        self._paint()
        try:
            pygame.image.save(self.painter.surface, str(path))
            self._say(f"saved {path.name}")
        except (pygame.error, OSError) as error:
            self._say(f"cannot save: {error}")

    # --- the mouse ---------------------------------------------------------------------------------------------------

    def _panel(self, pixel: tuple[int, int]) -> int | None:
        return next((i for i, axes in enumerate(self._axes()) if axes.holds(pixel)), None)

    def _axes(self) -> list[Axes]:
        return self.layout.axes([session.stage for session in self.sessions])

    def _move(self, pixel: tuple[int, int]) -> None:
        self.pointer = pixel
        if self._press is None:
            return
        panel, start = self._press
        session, axes = self.sessions[panel], self._axes()[panel]
        if not self._dragging and np.hypot(pixel[0] - start[0], pixel[1] - start[1]) > CLICK:
            session.grab(axes.state(start))
            self._dragging = True
        if self._dragging:
            session.pull(axes.state(pixel))

    def _release(self, pixel: tuple[int, int]) -> None:
        if self._press is None:
            return
        panel, _ = self._press
        if self._dragging:
            self.sessions[panel].pull(None)
        else:
            count = self.sessions[panel].drop(self._axes()[panel].state(pixel))
            self._say(f"{count} agents dropped" if count else "nobody can be dropped there")
        self._press, self._dragging = None, False

    # --- the picture -------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw and show a frame."""
        self._paint()
        self._boxes()
        self._screen.blit(self.painter.surface, (0, 0))
        pygame.display.flip()

    def scenes(self) -> list[Scene]:
        """What is to be seen now, one scene a panel."""
        quantity = QUANTITIES[self.quantity]
        scale = common_scale([session.motion for session in self.sessions], quantity)
        return [session.scene(self.phase, quantity, scale, self.density, self.trails) for session in self.sessions]

    def _paint(self) -> None:
        scenes, first = self.scenes(), self.sessions[0]
        T = first.game.horizon
        left = f"t = {int(scenes[0].time)}/{T}    N = {first.crowd.num_agents:,}    in {self._whose()}"
        ended = first.done and self.phase >= 1
        state = "the end, Space: again" if ended else "paused" if self.paused else ""
        rate = self._clock.get_fps()
        right = "    ".join(filter(None, [state, f"{rate:.0f} fps" if rate else "", "H: keys"]))
        self.painter.paint(scenes, left, right, scenes[0].time / T)

    def _whose(self) -> str:
        own = all(session.crowd.mean_field is None for session in self.sessions)
        return "each other's company" if own else "the loaded mean field"

    def _boxes(self) -> None:
        w, h = self.layout.width, self.layout.height
        if self.help:
            self.painter.box(KEYS, (w / 2, h / 2), "center", "body")
        elif self.pointer is not None and not self._dragging and (panel := self._panel(self.pointer)) is not None:
            lines = self._at_pointer(panel, self.pointer)
            self.painter.box(lines, (self.pointer[0] + 14, self.pointer[1] + 12))
        if self._message_left > 0:
            self.painter.box([self._message], (w / 2, h - 94 * self.layout.unit), "midbottom", "body")

    def _at_pointer(self, panel: int, pixel: tuple[int, int]) -> list[str]:
        session, axes = self.sessions[panel], self._axes()[panel]
        place, t = axes.state(pixel), session.t
        where = ", ".join(f"{x:.2f}" for x in place)
        if session.stage.dim == 1:
            t = round(axes.time(pixel))
            where = f"{where} at t = {t}"
        density, reward = session.probe(place, t)
        lines = [f"x\t{where}"]
        if density is not None:
            lines.append(f"density\t{density if density > TINY else 0:.3g}")
        if reward is not None:
            name = "reward" if t < session.game.horizon else "final reward"
            lines.append(f"{name}\t{reward:.3g}")
        return lines

    def _say(self, message: str) -> None:
        self._message, self._message_left = message, MESSAGE_SECONDS

    def _resize(self, size: tuple[int, int]) -> None:
        w, h = (max(a, least) for a, least in zip(size, SMALLEST, strict=True))
        n = len(self.sessions)
        unit = max(LEAST_UNIT, min(h / FRAME, w / (FRAME + (n - 1) * (SIDE + GAP)), 1.6))
        self.layout = Layout(w, h, 1, n, unit)
        self.painter = Painter(self.layout)
