"""Films of the play, and strips of snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mfg_envs.games import Game
from mfg_envs.viewer.layout import BAR, SIDE, Layout
from mfg_envs.viewer.painter import Painter
from mfg_envs.viewer.players import Player, title
from mfg_envs.viewer.pygame_ce import pygame
from mfg_envs.viewer.scene import Quantity, common_scale
from mfg_envs.viewer.session import Session, sessions

WIDE = 1.5  # width over height of a space-time picture
STEPS_PER_SECOND = 8
HOLD = {"start": 0.4, "end": 1.6}  # seconds
FILMS, PICTURES = (".gif", ".mp4"), (".png",)
FPS = {".gif": 16, ".mp4": 30}  # about
FASTEST = 30  # steps a second
AGENTS = {".gif": 400, ".mp4": 1000}
PANEL = {".gif": 280, ".mp4": SIDE}  # pixels
GIF_BYTES = 2_000_000
GIF_ATTEMPTS = ((128, 1), (64, 1), (128, 2), (64, 2), (32, 2), (32, 4))  # colours; every how many frames are kept


def film(
    path: str | os.PathLike[str],
    game: Game,
    players: Sequence[Player],
    num_agents: int | None = None,
    seed: int = 0,
    side: int | None = None,
    steps_per_second: float = STEPS_PER_SECOND,
    quantity: Quantity = "heading",
    density: bool = True,
    trails: bool = False,
    progress: bool = True,
) -> Path:
    """Film players side by side, each in the company of those who play alike, from t = 0 to T.

    A .gif gets as many colours and frames as fit into 2 MB, but at least 32 colours and every fourth frame.

    Args:
        path: of the film, ending in .gif or .mp4; an existing one is replaced, whole or not at all.
        game: the game.
        players: one for each panel.
        num_agents: N; by default 400 in a .gif, 1,000 in an .mp4.
        seed: of the noise.
        side: height of the panels in pixels; by default 280 in a .gif, 584 in an .mp4.
        steps_per_second: speed, at most 30.
        quantity: what colours the agents.
        density, trails: whether to draw them.
        progress: whether to show a bar, where tqdm is installed.

    Returns:
        The path.

    Raises:
        ValueError: for another ending, or an argument out of range.
        OSError: if the file cannot be written.
    """
    path = check_file(path, FILMS)
    if not 0 < steps_per_second <= FASTEST:
        raise ValueError(f"steps_per_second must be positive and at most {FASTEST}, got {steps_per_second}")
    shown = sessions(game, players, AGENTS[path.suffix] if num_agents is None else num_agents, seed)
    layout = _layout(shown[0], PANEL[path.suffix] if side is None else side, 1, len(players))
    painter = Painter(layout)
    left, right = f"N = {shown[0].crowd.num_agents:,}", title(game)
    between = max(1, round(FPS[path.suffix] / steps_per_second))  # frames in a step
    fps = between * steps_per_second

    def draw(phase: float) -> bytes:
        scale = common_scale([session.motion for session in shown], quantity)
        scenes = [session.scene(phase, quantity, scale, density, trails) for session in shown]
        time = scenes[0].time
        surface = painter.paint(scenes, f"t = {int(time)}/{game.horizon}    {left}", right, time / game.horizon)
        return pygame.image.tobytes(surface, "RGB")

    def frames() -> Iterator[bytes]:
        yield from [draw(1.0)] * round(HOLD["start"] * fps)
        for _ in _bar(game.horizon, progress, path.name):
            for session in shown:
                session.step()
            for i in range(between):
                yield draw((i + 1) / between)
        yield from [draw(1.0)] * round(HOLD["end"] * fps)

    size = layout.width, layout.height
    if path.suffix == ".mp4":
        _write(path, frames(), size, fps, codec="libx264", quality=7)
        return path
    taken = list(frames())
    for colours, every in GIF_ATTEMPTS:
        palette = f"split[a][b];[a]palettegen=max_colors={colours}[p];[b][p]paletteuse=dither=none"
        options = ["-vf", palette, "-loop", "0"]
        _write(path, taken[::every], size, fps / every, codec="gif", pix_fmt_out="pal8", output_params=options)
        if path.stat().st_size < GIF_BYTES:
            break
    return path


def picture(
    path: str | os.PathLike[str],
    game: Game,
    players: Sequence[Player],
    num_agents: int = 400,
    seed: int = 0,
    side: int | None = None,
    times: Sequence[int] = (),
    quantity: Quantity = "heading",
    density: bool = True,
    trails: bool = False,
    progress: bool = True,
) -> Path:
    """A strip of snapshots: a row for each player and a column for each time.

    Players of a space-time picture, which shows all times up to its own, stand side by side if there is one time.

    Args:
        path: of the picture, ending in .png; an existing one is replaced.
        game: the game.
        players: who plays.
        num_agents: N.
        seed: of the noise.
        side: height of the panels in pixels; 240 by default for a map, 360 on the line.
        times: when; by default 0, T/8, T/2 and T for a map, T on the line.
        quantity: what colours the agents.
        density, trails: whether to draw them.
        progress: whether to show a bar, where tqdm is installed.

    Returns:
        The path.

    Raises:
        ValueError: for another ending, or an argument out of range.
        OSError: if the file cannot be written.
    """
    path = check_file(path, PICTURES)
    T = game.horizon
    shown = sessions(game, players, num_agents, seed)
    plane = shown[0].stage.dim == 2
    when = sorted(set(times)) if times else [0, T // 8, T // 2, T] if plane else [T]
    if not 0 <= when[0] <= when[-1] <= T:
        raise ValueError(f"times must be between 0 and {T}, got {list(times)}")
    rows, columns = (len(players), len(when)) if plane or len(when) > 1 else (1, len(players))
    layout = _layout(shown[0], side if side is not None else 240 if plane else 360, rows, columns)
    shots = {}
    for t in _bar(T + 1, progress, path.name):
        if t in when:
            scale = common_scale([session.motion for session in shown], quantity)
            for i, session in enumerate(shown):
                scene = session.scene(1.0, quantity, scale, density, trails)
                name = ", ".join(filter(None, [scene.title, session.gap])) if t == when[0] else ""
                shots[i, t] = replace(scene, title=name, facts=f"t = {t}    return {session.mean_return:.2f}")
        for session in shown:
            session.step()
    scenes = [shots[i, t] for i in range(len(players)) for t in when]
    surface = Painter(layout).paint(scenes, f"N = {num_agents:,}", title(game))
    height = layout.height - round(BAR * layout.unit)  # there is no bar
    pygame.image.save(surface.subsurface((0, 0, layout.width, height)), str(path))
    return path


def check_file(path: str | os.PathLike[str], endings: tuple[str, ...]) -> Path:
    """The path, if it has one of these endings and a folder to be in; a ValueError otherwise."""
    path = Path(path)
    if path.suffix not in endings:
        raise ValueError(f"the file must end in {' or '.join(endings)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r}")
    return path


def _layout(session: Session, side: int, rows: int, columns: int) -> Layout:
    if not 100 <= side <= 2000:
        raise ValueError(f"side must be from 100 to 2000 pixels, got {side}")
    return Layout.around(side if session.stage.dim == 2 else round(WIDE * side), side, rows, columns)


def _bar(count: int, wanted: bool, name: str) -> Any:
    if wanted:
        try:
            from tqdm import tqdm

            return tqdm(range(count), desc=name, unit="step")
        except ImportError:
            pass
    return range(count)


def _write(path: Path, frames: Iterable[bytes], size: tuple[int, int], fps: float, **options: Any) -> None:
    """Frames as rows of RGB to a film, whole or not at all."""
    try:
        from imageio_ffmpeg import write_frames
    except ModuleNotFoundError as error:
        raise ImportError("films need imageio-ffmpeg: pip install 'mfg-envs[render]'") from error
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    writer = write_frames(str(partial), size, fps=fps, macro_block_size=1, **options)
    try:
        writer.send(None)
        for frame in frames:
            writer.send(frame)
        writer.close()
        os.replace(partial, path)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)
