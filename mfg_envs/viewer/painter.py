"""Scenes to pictures: a pure function, but for caches of what is drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mfg_envs.viewer import sprites
from mfg_envs.viewer.layout import BAR, RIGHT, Axes, Layout, ticks
from mfg_envs.viewer.palette import (
    ACCENT,
    AGENTS,
    AMOUNTS,
    BACKGROUND,
    BOX,
    DENSITY,
    EAST,
    EMPTY,
    GRID,
    HEADINGS,
    LEVELS,
    MUTED,
    NASH,
    STILL,
    TEXT,
    WALL,
    WEST,
    Colour,
    density_levels,
)
from mfg_envs.viewer.pygame_ce import pygame
from mfg_envs.viewer.scene import Scene
from mfg_envs.viewer.stage import FINER, Stage

SIZES = {"title": 24, "body": 19, "small": 16}  # of text, in units
FINE = 4  # text is drawn this much larger and scaled down, which spaces its letters evenly
SWARM = 26  # how far at most the agents on the line are spread around the time, in units
DASH = 14  # pixels from dash to dash
PACKED_DENSITY = np.concatenate([DENSITY[:, ::-1], np.full((256, 1), 255, np.uint8)], axis=1).view(np.uint32)[:, 0]
TRAIL = 8  # steps of a trail in a map


class Painter:
    """Draws scenes into a frame of a layout.

    Args:
        layout: of the frame.
    """

    def __init__(self, layout: Layout) -> None:
        pygame.font.init()
        self.layout, self.surface = layout, pygame.Surface((layout.width, layout.height))
        self.fonts = {name: pygame.font.Font(None, round(FINE * size * layout.unit)) for name, size in SIZES.items()}
        self._background: tuple[tuple[Stage, ...], pygame.Surface] | None = None
        self._text = lru_cache(maxsize=512)(self._render)

    def paint(
        self, scenes: Sequence[Scene], left: str = "", right: str = "", done: float | None = None
    ) -> pygame.Surface:
        """The frame with a scene in each panel, and two texts and a bar at its foot.

        Args:
            scenes: of one dimension and quantity.
            left, right: the texts.
            done: the part of the bar that is filled, in [0, 1]; None for no bar.

        Returns:
            The frame; the next call draws on the same surface.
        """
        axes = self.layout.axes([scene.stage for scene in scenes])
        self.surface.blit(self._static(tuple(scene.stage for scene in scenes), axes), (0, 0))
        for scene, of in zip(scenes, axes, strict=True):
            self._head(scene, of)
            self.surface.set_clip(of.rect)
            places = self._map(scene, of) if scene.stage.dim == 2 else self._space_time(scene, of)
            self._hand(scene, of, places)
            self.surface.set_clip(None)
        self._legend(scenes, axes)
        self._foot(left, right, done, axes)
        return self.surface

    def pixels(self) -> np.ndarray:
        """What was painted last, (height, width, 3) uint8."""
        size = self.layout.height, self.layout.width
        buffer: Any = self.surface.get_buffer()
        own = np.frombuffer(buffer, dtype=np.uint8).reshape(*size, 4)  # blue, green, red, unused
        pixels = np.empty((*size, 3), dtype=np.uint8)
        for channel in range(3):  # four times as fast as all at once
            pixels[..., channel] = own[..., 2 - channel]
        return pixels

    def write(
        self, text: str, place: tuple[float, float], size: str = "body", colour: Colour = TEXT, anchor: str = "topleft"
    ) -> None:
        """Text with its `anchor` (as of pygame's rectangles) at a place."""
        image = self._text(text, size, colour)
        self.surface.blit(image, image.get_rect(**{anchor: (round(place[0]), round(place[1]))}))

    def box(
        self, lines: Sequence[str], place: tuple[float, float], anchor: str = "topleft", size: str = "small"
    ) -> None:
        """Lines of text on a dark ground, its `anchor` at a place, kept within the frame; tabs make columns."""
        cells = [[self._text(text, size, TEXT) for text in line.split("\t")] for line in lines]
        pad, step = round(9 * self.layout.unit), round(1.3 * cells[0][0].get_height())
        widths = [max(row[i].get_width() for row in cells if len(row) > i) for i in range(max(map(len, cells)))]
        lefts = np.cumsum([pad, *(w + 2 * pad for w in widths)])
        rect = pygame.Rect(0, 0, lefts[-1] - pad, step * len(cells) + 2 * pad - step // 5)
        setattr(rect, anchor, (round(place[0]), round(place[1])))
        rect.clamp_ip(self.surface.get_rect())
        ground = pygame.Surface(rect.size, pygame.SRCALPHA)
        pygame.draw.rect(ground, (*BOX, 246), ground.get_rect(), border_radius=6)
        pygame.draw.rect(ground, (*WALL, 255), ground.get_rect(), width=1, border_radius=6)
        for i, row in enumerate(cells):
            for left, image in zip(lefts.tolist(), row, strict=False):
                ground.blit(image, (left, pad + i * step))
        self.surface.blit(ground, rect)

    def _render(self, text: str, size: str, colour: Colour) -> pygame.Surface:
        large = self.fonts[size].render(text, True, colour)
        return pygame.transform.smoothscale(large, (-(-large.get_width() // FINE), -(-large.get_height() // FINE)))

    # --- panels ------------------------------------------------------------------------------------------------------

    def _static(self, stages: tuple[Stage, ...], axes: list[Axes]) -> pygame.Surface:
        """Empty panels, numbers and grid lines."""
        if self._background is None or self._background[0] != stages:
            frame = self.surface
            self.surface = pygame.Surface(frame.get_size())
            self.surface.fill(BACKGROUND)
            for number, of in enumerate(axes):
                self.surface.fill(EMPTY, of.rect)
                self._numbers(of, first=number % self.layout.columns == 0)
            self._background, self.surface = (stages, self.surface), frame
        return self._background[1]

    def _numbers(self, axes: Axes, first: bool) -> None:
        """Grid lines and their numbers; those of the states at the first panel of a row only, as all are alike."""
        x, y, w, h = axes.rect
        stage, u = axes.stage, self.layout.unit
        count = max(2, round(h / u / 90))
        for value in ticks(stage.low[-1], stage.high[-1], count):
            at = axes.pixels(np.full((1, stage.dim), value))[0, 1]
            if first:
                self.write(f"{value:.4g}", (x - 6 * u, at), "small", MUTED, "midright")
            pygame.draw.line(self.surface, GRID, (x, round(at)), (x + w - 1, round(at)))
        across = (0, stage.horizon) if stage.dim == 1 else (stage.low[0], stage.high[0])
        for value in ticks(across[0], across[1], max(2, round(w / u / 90))):
            if stage.dim == 1 and value != round(value):
                continue
            at = axes.pixels(np.full((1, stage.dim), value), value)[0, 0]
            self.write(f"{value:.4g}", (at, y + h + 5 * u), "small", MUTED, "midtop")
            pygame.draw.line(self.surface, GRID, (round(at), y), (round(at), y + h - 1))

    def _head(self, scene: Scene, axes: Axes) -> None:
        (x, y, _, _), u = axes.rect, self.layout.unit
        self.write(scene.title, (x, y - 44 * u), "title")
        self.write(scene.facts, (x, y - 20 * u), "body", MUTED)

    def _map(self, scene: Scene, axes: Axes) -> np.ndarray:
        """Density, trails and agents, and the walls on top of them: nobody is drawn in a wall. Where agents are."""
        x, y, w, h = axes.rect
        if scene.density is not None:
            levels = density_levels(scene.density, scene.stage.half)
            self.surface.blit(_heatmap(levels[:, ::-1].T, (w, h)), (x, y))
        places = axes.pixels(scene.agents)
        if scene.paths is not None:
            steps, n = scene.paths.shape[:2]
            lines = axes.pixels(scene.paths.reshape(-1, 2)).reshape(steps, n, 2)
            self._trails(np.concatenate([lines, places[None, :n]])[-TRAIL - 1 :], scene.tints)
        self._discs(scene, axes, places)
        for name, place in scene.stage.landmarks:
            self._landmark(name, axes.pixels(np.array([place]))[0])
        if scene.stage.floor is not None:
            for low, high in scene.stage.floor.walls:
                (left, bottom), (right, top) = axes.pixels(np.array([low, high]))
                corner = round(left), round(top)
                pygame.draw.rect(self.surface, WALL, (*corner, round(right) - corner[0], round(bottom) - corner[1]))
        return places

    def _space_time(self, scene: Scene, axes: Axes) -> np.ndarray:
        """The density up to now, the agents around the present, the means. Where agents are."""
        x, y, w, h = axes.rect
        stage = scene.stage
        now = axes.pixels(np.zeros((1, 1)), scene.time)[0, 0]
        if scene.density is not None:
            columns = np.pad(scene.density, ((0, FINER * stage.horizon + 1 - len(scene.density)), (0, 0)), mode="edge")
            ends = np.array([-0.5, len(columns) - 0.5]) / FINER  # in time
            left, right = axes.pixels(np.zeros((2, 1)), ends)[:, 0].round().astype(int).tolist()
            image = _heatmap(density_levels(columns, stage.half)[:, ::-1].T, (right - left, h))
            self.surface.blit(image, (left, y), (0, 0, max(0, round(now) - left), h))
        for name, place in stage.landmarks:
            at = axes.pixels(np.array([place]))[0, 1]
            for left in range(x, x + w, 12):
                pygame.draw.line(self.surface, MUTED, (left, round(at)), (left + 4, round(at)))
            self.write(name, (x + 8 * self.layout.unit, at - 3), "small", TEXT, "bottomleft")
        if scene.nash is not None:
            line = axes.pixels(scene.nash[:, None], np.arange(len(scene.nash)))
            self._line(line, NASH, dashes=True)
        if scene.mean is not None:
            line = axes.pixels(scene.mean[:, None], np.minimum(np.arange(len(scene.mean)), scene.time))
            self._line(line, TEXT)
        places = axes.pixels(scene.agents, scene.time)
        if scene.paths is not None:
            steps, n = scene.paths.shape[:2]
            times = np.minimum(np.arange(steps), scene.time)
            lines = axes.pixels(scene.paths.reshape(-1, 1), np.repeat(times, n)).reshape(steps, n, 2)
            self._trails(np.concatenate([lines, places[None, :n]]), scene.tints)
        pygame.draw.line(self.surface, MUTED, (round(now), y), (round(now), y + h))
        # Side by side as far as there are others at the same state: the outline is the crowd's density, mirrored.
        share = _crowding(places[:, 1], y, h)
        spread = (np.arange(len(places)) * 0.618034) % 1 * 2 - 1  # the golden ratio: evenly, and always the same
        places[:, 0] += spread * share * SWARM * self.layout.unit
        self._discs(scene, axes, places)
        return places

    def _discs(self, scene: Scene, axes: Axes, places: np.ndarray) -> None:
        x, y, w, h = axes.rect
        shown = np.all((places > (x - 9, y - 9)) & (places < (x + w + 9, y + h + 9)), axis=1)
        radius = sprites.radius_of(len(places), max(self.layout.unit * min(1.0, h / 584), 0.55))
        sprites.draw(self.surface, places[shown], scene.tints[shown], round(radius, 1))

    def _trails(self, lines: np.ndarray, tints: np.ndarray) -> None:
        """Lines (steps, n, 2) in the agents' colours, fading into the past."""
        shades = np.linspace(0.4, 0.95, max(len(lines) - 1, 1))[:, None, None]
        colours = (shades * AGENTS[tints[: lines.shape[1]]] + (1 - shades) * np.array(BACKGROUND)).astype(int).tolist()
        lines = np.where(np.isnan(lines), lines[-1], lines)
        for step in range(len(lines) - 1):
            for colour, start, end in zip(colours[step], lines[step].tolist(), lines[step + 1].tolist(), strict=True):
                pygame.draw.aaline(self.surface, colour, start, end)

    def _line(self, points: np.ndarray, colour: Colour, dashes: bool = False) -> None:
        """A broken line through points (m, 2), on a dark ground that sets it off."""
        width = max(2, round(2 * self.layout.unit))
        if dashes:
            along = np.append(0, np.hypot(*np.diff(points, axis=0).T).cumsum())
            ends = np.arange(0, along[-1], DASH / 2)
            points = np.stack([np.interp(ends, along, axis) for axis in points.T], axis=1)
        pairs = list(zip(points[:-1].tolist(), points[1:].tolist(), strict=True))[:: 2 if dashes else 1]
        for shade, extra in ((BACKGROUND, 2), (colour, 0)):
            for start, end in pairs:
                pygame.draw.aaline(self.surface, shade, start, end, width + extra)

    def _landmark(self, name: str, at: np.ndarray) -> None:
        u = self.layout.unit
        pygame.draw.aacircle(self.surface, BACKGROUND, at.tolist(), round(10 * u), 4)
        pygame.draw.aacircle(self.surface, TEXT, at.tolist(), round(9 * u), 2)
        pygame.draw.aacircle(self.surface, TEXT, at.tolist(), max(2, round(2.5 * u)))
        x, y = at[0], at[1] - 12 * u
        for shift in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            self.write(name, (x + shift[0], y + shift[1]), "small", BACKGROUND, "midbottom")
        self.write(name, (x, y), "small", TEXT, "midbottom")

    def _hand(self, scene: Scene, axes: Axes, places: np.ndarray) -> None:
        """The agent that is played by hand, where it is being pulled to, and the note."""
        if scene.chosen is not None:
            at = places[scene.chosen].tolist()
            if scene.pull is not None:
                to = axes.pixels(scene.pull[None], scene.time)[0].tolist()
                pygame.draw.aaline(self.surface, TEXT, at, to, 2)
                pygame.draw.aacircle(self.surface, TEXT, to, 4)
            pygame.draw.aacircle(self.surface, BACKGROUND, at, 12, 5)
            pygame.draw.aacircle(self.surface, TEXT, at, 11, 3)
        if scene.note:
            x, y, w, _ = axes.rect
            self.box(scene.note, (x + w - 8, y + 8), "topright", "body")

    # --- around the panels -------------------------------------------------------------------------------------------

    def _legend(self, scenes: Sequence[Scene], axes: Sequence[Axes]) -> None:
        u, scene = self.layout.unit, scenes[0]
        x = axes[self.layout.columns - 1].rect[0] + axes[self.layout.columns - 1].rect[2] + 16 * u
        _, top, _, height = axes[0].rect
        bar = round(14 * u)
        self.write("density", (x, top), "small", MUTED)
        y, h = top + 20 * u, 0.4 * height
        self.surface.blit(_bar(DENSITY.tobytes(), (bar, round(h))), (round(x), round(y)))
        half = scene.stage.half
        for value in _density_ticks(half):
            at = y + h * half / (value + half)
            pygame.draw.line(self.surface, MUTED, (x + bar, at), (x + bar + 3, at))
            self.write(f"{value:g}", (x + bar + 6 * u, at), "small", MUTED, "midleft")
        y += h + 26 * u
        self.write(scene.quantity, (x, y), "small", MUTED)
        y += 20 * u
        if scene.scale is not None:
            h = 0.22 * height
            self.surface.blit(_bar(AMOUNTS.tobytes(), (bar, round(h))), (round(x), round(y)))
            for value, at in zip(scene.scale, (y + h - 5 * u, y + 5 * u), strict=True):
                self.write(f"{value:.3g}", (x + bar + 6 * u, at), "small", MUTED, "midleft")
            y += h
        elif scene.stage.dim == 2:
            wheel = _wheel(round(27 * u))
            self.surface.blit(wheel, (round(x), round(y)))
            y += wheel.get_height() + 8 * u
        if scene.scale is None:
            names = (("still", STILL),) if scene.stage.dim == 2 else (("up", EAST), ("down", WEST), ("still", STILL))
            for text, colour in names:
                pygame.draw.aacircle(self.surface, colour, (x + 6 * u, y + 7 * u), round(5 * u))
                self.write(text, (x + 17 * u, y + 7 * u), "small", MUTED, "midleft")
                y += 18 * u
        y += 24 * u
        for text, colour, there in (
            ("mean", TEXT, any(scene.mean is not None for scene in scenes)),
            ("Nash", NASH, any(scene.nash is not None for scene in scenes)),
        ):
            if there:
                self._line(np.array([[x, y], [x + 17 * u, y]]), colour)
                self.write(text, (x + 23 * u, y), "small", MUTED, "midleft")
                y += 20 * u

    def _foot(self, left: str, right: str, done: float | None, axes: Sequence[Axes]) -> None:
        u, first, last = self.layout.unit, axes[0].rect, axes[-1].rect
        x, end, y = first[0], last[0] + last[2], last[1] + last[3] + 34 * u
        w = end - x
        if done is not None:
            pygame.draw.rect(self.surface, GRID, (x, y, w, 4 * u), border_radius=2)
            pygame.draw.rect(self.surface, ACCENT, (x, y, w * done, 4 * u), border_radius=2)
            y += BAR * u
        self.write(left, (x, y), "body", MUTED)
        self.write(right, (end + (RIGHT - 16) * u, y), "body", MUTED, "topright")


@lru_cache(maxsize=8)
def _density_ticks(half: float) -> list[float]:
    """0 and round densities, apart from each other on the scale p / (p + half)."""
    chosen, shares = [0.0], [0.0]
    for exponent in range(-12, 13):
        for digit in (1, 2, 5):
            value = float(f"{digit}e{exponent}")
            share = value / (value + half)
            if shares[-1] + 0.13 <= share <= 0.96:
                chosen.append(value)
                shares.append(share)
    return chosen


def _heatmap(levels: np.ndarray, size: tuple[int, int]) -> pygame.Surface:
    """Levels (rows, columns) from the top left, as colours, smoothly scaled to a size."""
    rows, columns = levels.shape
    image = pygame.image.frombuffer(np.take(PACKED_DENSITY, levels).tobytes(), (columns, rows), "BGRA")
    image = pygame.transform.smoothscale(image, size)
    image.set_alpha(None)  # it covers all
    return image


@lru_cache(maxsize=16)
def _bar(colours: bytes, size: tuple[int, int]) -> pygame.Surface:
    """A ramp of colours (n, 3), the first at the bottom."""
    ramp = np.frombuffer(colours, dtype=np.uint8).reshape(-1, 1, 3)[::-1]
    return pygame.transform.smoothscale(pygame.image.frombuffer(ramp.tobytes(), (1, len(ramp)), "RGB"), size)


@lru_cache(maxsize=8)
def _wheel(radius: int) -> pygame.Surface:
    """The ring of headings."""
    grid = np.arange(2 * radius + 1) - radius
    x, y = np.meshgrid(grid, -grid)
    distance = np.hypot(x, y)
    colour = HEADINGS[np.round(np.arctan2(y, x) / (2 * np.pi) * LEVELS).astype(int) % LEVELS]
    alpha = np.clip(radius - distance, 0, 1) * np.clip(distance - 0.55 * radius, 0, 1)
    return sprites.surface(np.concatenate([colour, (255 * alpha[..., None]).round()], axis=-1))


def _crowding(y: np.ndarray, top: int, height: int) -> np.ndarray:
    """How many agents are at each agent's height, of the most: (n,) in [0, 1]."""
    if len(y) < 2:
        return np.zeros(len(y))
    cells = np.clip((y - top) / height * 64, 0, 63.999)
    lower = np.clip(np.floor(cells - 0.5), 0, 62).astype(np.intp)
    share = np.clip(cells - 0.5 - lower, 0, 1)
    counts = np.bincount(lower, 1 - share, 64) + np.bincount(lower + 1, share, 64)
    counts = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    return ((1 - share) * counts[lower] + share * counts[lower + 1]) / counts.max()
