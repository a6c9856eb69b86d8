"""Boxes with walls, and the specular reflection of displacements in them (ours).

The free region of a floor plan is a box less the union of axis-aligned walls. It is held as cells: the box is cut along
every face of every wall, so that each cell is wholly free or wholly solid, and each side of a cell wholly open or
wholly shut. An agent is followed from cell to cell. Which cell it is in is an integer, so rounding may shift by a hair
where it crosses or reflects, but can never bring it into a solid cell, and so never into a wall.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import isfinite, prod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

Array = Any  # of NumPy or PyTorch
Corner = tuple[float, ...]

_FAR = 1e20  # in boxes: a displacement as good as infinite


@dataclass(frozen=True)
class FloorPlan:
    """A closed box of any dimension d >= 1 with solid, axis-aligned, box-shaped walls.

    The free region is the closure of the box less its walls: the faces of a wall belong to it; the seam between two
    walls that touch does not, nor does the border behind a wall. Walls may overlap, touch each other and poke beyond
    the border; what lies outside the box has no effect. Where walls touch at a mere corner or edge, they shut the gap.

    The methods take NumPy and PyTorch arrays, float32 or float64, on any device. They compute in the dtype of x, to
    which the faces are rounded. The geometry takes up to (2 len(walls) + 3)^d cells: some dozens of walls in the plane.

    Attributes:
        low, high: the corners of the box, d floats each.
        walls: pairs (lower corner, upper corner), d floats each. Lists and arrays are turned into nested tuples.

    Raises:
        ValueError: naming the field, if a number is not finite, a corner has not d of them, or a lower corner is not
            below its upper corner in every coordinate.
    """

    low: Corner
    high: Corner
    walls: tuple[tuple[Corner, Corner], ...] = ()

    MAX_CONTACTS: ClassVar[int] = 32
    """The number of contacts with walls and border at which a displacement ends, if there are walls."""

    def __post_init__(self) -> None:
        low, high = _box("low and high", (self.low, self.high))
        try:
            walls = tuple(self.walls)
        except TypeError:
            raise ValueError(f"walls must be pairs (lower corner, upper corner), got {self.walls!r}") from None
        walls = tuple(_box(f"walls[{i}]", wall, dim=len(low)) for i, wall in enumerate(walls))
        for field, value in (("low", low), ("high", high), ("walls", walls)):
            object.__setattr__(self, field, value)

    @property
    def dim(self) -> int:
        """The dimension d of the box."""
        return len(self.low)

    @property
    def free_area(self) -> float:
        """The volume of the free region, exact up to rounding."""
        volume = prod(high - low for low, high in zip(self.low, self.high, strict=True))
        return volume * self.free_fraction((1,) * self.dim).item()

    def free_fraction(self, cells: tuple[int, ...]) -> np.ndarray:
        """The part that is free, in [0, 1], of each cell of the regular grid of `cells` cells over the box.

        A float64 array of shape `cells`, exact up to rounding. Fractions within 1e-12 of 0 and 1 come from the rounding
        of faces that the grid is aligned with, and are set to 0 and 1.
        Raises ValueError unless `cells` holds d positive integers.
        """
        cells = tuple(cells)
        if len(cells) != self.dim or not all(isinstance(n, int | np.integer) and n > 0 for n in cells):
            raise ValueError(f"cells must be {self.dim} positive integers, got {cells!r}")
        geometry = _geometry(self, "float64")
        solid = geometry.solid.reshape([len(lines) + 1 for lines in geometry.lines])
        fraction = 1.0 - solid[(slice(1, -1),) * self.dim]
        for axis, (n, lines) in enumerate(zip(cells, geometry.lines, strict=True)):
            edges = np.linspace(self.low[axis], self.high[axis], n + 1)[:, None]
            overlap = np.minimum(edges[1:], lines[1:]) - np.maximum(edges[:-1], lines[:-1])
            share = np.maximum(overlap, 0.0) / np.diff(edges, axis=0)
            fraction = np.moveaxis(np.tensordot(share, fraction, axes=(1, axis)), 0, axis)
        fraction = np.where(fraction < 1e-12, 0.0, fraction)
        return np.where(fraction > 1 - 1e-12, 1.0, fraction)

    def contains(self, x: Array) -> Array:
        """Whether each x (n, d) is in the free region, faces and border included: (n,) bool; NaN is not.

        Raises ValueError if x has another shape or is neither float32 nor float64.
        """
        xp, geometry = self._geometry_for(x)
        return ~geometry.solid[_home(xp, geometry, x, x > 0)]  # any side will do

    def reflect(self, x: Array, displacement: Array) -> Array:
        """Where `displacement` (n, d) takes x (n, d), specularly reflected by walls and border: (n, d).

        The displacement is traced to its first contact, the normal component of what remains of it is reversed, and so
        on. At contact `MAX_CONTACTS` the agent stops, exactly on the face. A box without walls has no such maximum:
        there it is the exact fold of the line. Moving along a face, or away from it, is no contact. At an edge or a
        corner, hit exactly, an agent crosses the lines of its faces one by one, in the order of the axes.

        The result is in the free region for a displacement of any length; one of more than 1e20 boxes, or infinite, is
        cut to that. Agents that start outside the free region stay where they are. A NaN in x or in the displacement
        is a NaN in that coordinate of the result. The map has slopes 1 and -1, save for agents that stop, and so are
        PyTorch's gradients. Raises ValueError if the shapes are not (n, d) or x is neither float32 nor float64.
        """
        xp, geometry = self._geometry_for(x)
        if displacement.shape != x.shape:
            raise ValueError(f"displacement must have shape {tuple(x.shape)}, as x, got {tuple(displacement.shape)}")
        v = xp.astype(displacement, x.dtype, copy=False)
        end = x + v
        # Most agents touch nothing: the box that their path sweeps meets no wall and lies within the border.
        sweep_low, sweep_high = _transpose(xp, xp.minimum(x, end)), _transpose(xp, xp.maximum(x, end))
        low, high = geometry.border[..., None]
        touches = xp.any((sweep_low < low) | (sweep_high > high), axis=0)
        if self.walls:
            wall_low, wall_high = geometry.walls
            touches |= xp.any(xp.all((sweep_low <= wall_high) & (sweep_high >= wall_low), axis=1), axis=0)
        rows = xp.nonzero(touches)[0]
        if rows.shape[0] > 0:
            trace = _trace if self.walls else _fold
            end[rows] = trace(xp, geometry, xp.take(x, rows, axis=0), xp.take(v, rows, axis=0))
        return end

    def _geometry_for(self, x: Array) -> "tuple[Any, _Geometry]":
        """The array namespace of x, and the geometry in its library and dtype and on its device."""
        xp = array_namespace(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (n, {self.dim}), got {tuple(x.shape)}")
        if x.dtype != xp.float32 and x.dtype != xp.float64:
            raise ValueError(f"x must be float32 or float64, got {x.dtype}")
        geometry = _geometry(self, "float32" if x.dtype == xp.float32 else "float64")
        return xp, geometry if isinstance(x, np.ndarray) else geometry.to(xp, device(x))


def cross_of_rooms(wall: float = 0.05, door: float = 0.25) -> FloorPlan:
    """Four rooms: the square [-1, 1]^2, cut by a cross of walls along both axes with a door in each arm (ours).

    The walls have half-thickness `wall`. The doors are `door` wide, centred at (0, 0.5), (0, -0.5), (0.5, 0) and
    (-0.5, 0); at 0 they are shut. Raises ValueError unless wall > 0 and 0 <= door / 2 <= 0.5 - wall, so that a door
    fits between the cross and the border.
    """
    if not wall > 0:
        raise ValueError(f"wall must be positive, got {wall!r}")
    if not 0 <= door / 2 <= 0.5 - wall:
        raise ValueError(f"door must be in [0, 1 - 2 wall], got {door!r} with wall={wall!r}")
    pieces = ((-1.0, -0.5 - door / 2), (-0.5 + door / 2, 0.5 - door / 2), (0.5 + door / 2, 1.0))
    lying = [((start, -wall), (stop, wall)) for start, stop in pieces]
    standing = [((-wall, start), (wall, stop)) for start, stop in pieces]
    return FloorPlan((-1.0, -1.0), (1.0, 1.0), (*lying, *standing))


def _box(name: str, corners: Any, dim: int | None = None) -> tuple[Corner, Corner]:
    """A pair of corners as tuples of floats, checked."""
    try:
        low, high = (tuple(float(a) for a in corner) for corner in corners)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair of corners, sequences of floats, got {corners!r}") from None
    if not low or len(high) != len(low) or len(low) != (dim or len(low)):
        raise ValueError(f"{name} must be two corners of {dim or 'd >= 1'} coordinates, got {corners!r}")
    if not all(isfinite(a) for a in (*low, *high)):
        raise ValueError(f"{name} must be finite, got {corners!r}")
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"{name} must be a lower corner and an upper corner above it, got {corners!r}")
    return low, high


class _Geometry(NamedTuple):
    """A floor plan in one library and dtype: C cells, numbered in C order, a layer of solid ones around the box."""

    lines: tuple[Array, ...]  # along each axis, where border and faces are: cell i lies between lines i - 1 and i
    strides: Array  # (d,) what one cell further along each axis adds to the number of a cell
    solid: Array  # (C,) bool
    low: Array  # (C, d) the corners of each cell
    high: Array  # (C, d)
    border: Array  # (2, d)
    walls: Array  # (2, walls, d, 1)
    slow: Array  # () a displacement as good as none
    far: Array  # () a displacement as good as infinite

    def to(self, xp: Any, device: Any) -> "_Geometry":
        """The same in another library, on `device`."""
        lines, *others = self
        return _Geometry(
            tuple(xp.asarray(a, device=device) for a in lines), *(xp.asarray(a, device=device) for a in others)
        )


@lru_cache(maxsize=64)
def _geometry(plan: FloorPlan, dtype: str) -> _Geometry:
    dim, border = plan.dim, np.array([plan.low, plan.high])
    walls = np.array(plan.walls).reshape(-1, 2, dim)
    clipped = np.clip(walls, *border)
    lines = [np.unique([*border[:, axis], *clipped[:, :, axis].flat]) for axis in range(dim)]
    solid = np.ones([len(a) + 1 for a in lines], dtype=bool)
    solid[(slice(1, -1),) * dim] = False
    for wall in clipped:
        solid[tuple(slice(*np.searchsorted(a, ends) + 1) for a, ends in zip(lines, wall.T, strict=True))] = True
    low = np.meshgrid(*(np.concat([a[:1], a]) for a in lines), indexing="ij")
    high = np.meshgrid(*(np.concat([a, a[-1:]]) for a in lines), indexing="ij")
    size = np.max(border[1] - border[0])
    return _Geometry(
        lines=tuple(a.astype(dtype) for a in lines),
        strides=np.array(solid.strides),  # in bytes, and a bool is one
        solid=solid.reshape(-1),
        low=np.stack(low, axis=-1).reshape(-1, dim).astype(dtype),
        high=np.stack(high, axis=-1).reshape(-1, dim).astype(dtype),
        border=border.astype(dtype),
        walls=np.moveaxis(walls, 1, 0)[..., None].astype(dtype),
        slow=np.array(size / _FAR, dtype=dtype),
        far=np.array(size * _FAR, dtype=dtype),
    )


def _transpose(xp: Any, a: Array) -> Array:
    """The transpose, contiguous: NumPy is several times as fast on few long rows as on many short ones."""
    return xp.reshape(xp.reshape(a.T, (-1,)), (a.shape[1], a.shape[0]))


def _clamp(xp: Any, a: Array, low: Array, high: Array) -> Array:
    return xp.minimum(xp.maximum(a, low), high)


def _home(xp: Any, geometry: _Geometry, x: Array, up: Array) -> Array:
    """A free cell that touches x, the one ahead if that is free; a solid one if none is: x, up (n, d) -> (n,)."""
    rows, axes = _transpose(xp, x), range(len(geometry.lines))
    upper = [xp.searchsorted(geometry.lines[i], rows[i], side="right") * geometry.strides[i] for i in axes]
    cell = sum(upper)
    if not xp.any(x == xp.take(geometry.low, cell, axis=0)):  # on no line, so in one cell only
        return cell
    lower = [xp.searchsorted(geometry.lines[i], rows[i], side="left") * geometry.strides[i] for i in axes]
    ahead = [xp.where(up[:, i], upper[i], lower[i]) for i in axes]
    behind = [xp.where(up[:, i], lower[i], upper[i]) for i in axes]
    cell, *others = map(sum, product(*zip(ahead, behind, strict=True)))
    for other in others:
        cell = xp.where(geometry.solid[cell], other, cell)
    return cell


def _fold(xp: Any, geometry: _Geometry, x: Array, v: Array) -> Array:
    """Reflection by the border alone, in closed form: x, v (n, d) -> (n, d)."""
    low, high = geometry.border
    end = x + _clamp(xp, v, -geometry.far, geometry.far)
    period = 2 * (high - low)
    phase = xp.remainder(end - low, period)
    folded = _clamp(xp, low + xp.minimum(phase, period - phase), low, high)
    end = xp.where((end < low) | (end > high), folded, end)
    return xp.where(xp.any((x < low) | (x > high), axis=1, keepdims=True), x, end)


def _trace(xp: Any, geometry: _Geometry, x: Array, v: Array) -> Array:
    """Reflection by walls and border, contact by contact: x, v (n, d) -> (n, d).

    An agent moves to and fro along each axis at its constant speed |v|, and the displacement takes unit time; so it is
    enough to know, for each axis, when the agent next comes to a side of its cell. The earliest such side is either
    open and leads to the next cell, or shut and a mirror for what remains of the displacement, and so for its end.
    """
    n, d = x.shape
    strides, solid, low, high = geometry.strides, geometry.solid, geometry.low, geometry.high
    v = _clamp(xp, v, -geometry.far, geometry.far)
    up, speed = v > 0, xp.abs(v)
    moves = speed > geometry.slow  # slower, it crosses nothing
    cell = _home(xp, geometry, x, up)
    free = xp.reshape(~solid[cell], (n, 1))
    to_low, to_high = x - xp.take(low, cell, axis=0), xp.take(high, cell, axis=0) - x
    time = xp.where(up, to_high, to_low) / xp.where(moves, speed, 1.0)
    time = xp.where(moves & free, time, 2.0)  # 2 is never
    step = xp.where(up, strides, -strides)  # from the number of the cell to that of the cell ahead
    slides = not xp.all(moves)
    if slides:  # along a line, an agent is in the cells on both sides: this is the step from one to the other
        across = xp.where(to_high == 0, strides, 0) - xp.where(to_low == 0, strides, 0)
        across = xp.reshape(xp.where(moves, 0, across), (-1,))

    # Flat from here on, which is cheapest to index: entry agent * d + axis, and cell * d + axis.
    end, speed, time, step = (xp.reshape(a, (-1,)) for a in (x + v, speed, time, step))
    flat_low, flat_high = xp.reshape(low, (-1,)), xp.reshape(high, (-1,))
    first_axis = xp.arange(0, n * d, d, device=device(x))
    contacts = 0 * cell
    for event in range(FloorPlan.MAX_CONTACTS * sum(a.shape[0] for a in geometry.lines)):  # more than there can be
        axis = xp.argmin(xp.reshape(time, (n, d)), axis=1)
        side = first_axis + axis
        busy = xp.nonzero(time[side] < 1)[0]
        if busy.shape[0] == 0:
            break
        axis, side, here = axis[busy], side[busy], cell[busy]
        shut = solid[here + step[side]]
        if slides:  # what is shut on one side of the line may be open on the other
            for line in (busy * d + i for i in range(d)):
                other = here + across[line]
                passes = shut & ~solid[other] & ~solid[other + step[side]]
                here = xp.where(passes, other, here)
                across[line] *= xp.where(passes, -1, 1)
                shut = shut & ~passes
        here = xp.where(shut, here, here + step[side])
        cell[busy] = here
        at = here * d + axis

        bounced, mirror, at_mirror = busy[shut], side[shut], at[shut]
        contacts[bounced] += 1
        if event + 1 >= FloorPlan.MAX_CONTACTS:
            spent = contacts[bounced] == FloorPlan.MAX_CONTACTS
            now, spent = time[mirror[spent]], bounced[spent]
            sides = xp.reshape(spent * d, (-1, 1)) + xp.arange(d, device=device(x))
            left = (time[sides] - now[:, None]) * speed[sides]  # to the side ahead; 0 where the contact is
            corner_low, corner_high = (xp.take(corner, cell[spent], axis=0) for corner in (low, high))
            stop = xp.where(step[sides] > 0, corner_high - left, corner_low + left)
            end[sides] = xp.where(xp.take(moves, spent, axis=0), stop, end[sides])
            time[sides] = 2.0
        end[mirror] = 2 * xp.where(step[mirror] > 0, flat_high[at_mirror], flat_low[at_mirror]) - end[mirror]
        step[mirror] = -step[mirror]
        time[side] += (flat_high[at] - flat_low[at]) / speed[side]

    end = _clamp(xp, xp.reshape(end, (n, d)), xp.take(low, cell, axis=0), xp.take(high, cell, axis=0))
    return xp.where(free | xp.isnan(v), end, x)
