"""The density of a crowd of N agents: a binned kernel estimate that respects walls and borders. Ours.

The floor is cut into rectangles whose edges lie on every border and wall face, so that a cell is wholly free or wholly
wall. Densities are bilinear in each free cell, hence known by their values at the nodes, the corners of the cells. A
node that two cells share is a point that both touch: nothing is interpolated across a wall, however thin it is.

1. Deposit: a sample's mass goes to the corners of its cell, with bilinear weights.
2. Smooth: the heat semigroup of the finite volume Laplacian on the nodes, without flux through borders and walls, by
   Strang splitting: half a step along x, a step along y, half a step along x. On a grid line that is a small matrix.
3. Evaluate: bilinear interpolation, the transpose of the deposit.

Each step conserves mass and keeps the uniform density as it is, and the whole is symmetric in sample and point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, product
from numbers import Real

import numpy as np

from mfg_envs.games.floor_plan import FloorPlan

COARSE = {1: 32, 2: 16}  # cells a side (of a square floor) on which the bandwidth is chosen
FINE = {1: 512, 2: 96}  # cells a side of the finest mesh
LONGEST = {1: 512, 2: 256}  # cells along a side of the finest mesh, however oblong the floor
LADDER = 8  # bandwidths from the data are rounded to powers of 2^(1/8), so that operators are found in the cache
MOST_NODES = 1_000_000  # of several crowds that are smoothed together
REACH = 5.0  # without a floor, the box ends this many bandwidths beyond the outermost samples


class KernelDensity:
    """Kernel density estimate of N agents that live on a floor plan. It integrates to one over the free area.

    Costs O(N + cells) to build and O(n) to evaluate at n points. In the open the kernel is Gaussian, with the standard
    deviation `bandwidth` in each coordinate. Borders and walls reflect it, so a uniform crowd has a flat density up to
    the walls, and mass on one side of a wall does not count on the other. docs/density.md has its errors.

    Args:
        x: (N, d) samples inside the floor, d = 1 or 2, N of at least 1.
        floor: borders and walls, in the units of x. None means all of R^d: a box that ends 5 bandwidths beyond the
            outermost samples, or a little further, stands for it, and the density is 0 outside.
        bandwidth: standard deviation of the kernel, in the units of x. None has it chosen from the samples.

    Attributes:
        bandwidth: the one in use. Chosen from the samples it is 1.2 s N^(-1/(d+4)), where s is the standard deviation
            of the crowd, or of the clusters that it consists of if that is less; it is rounded to a power of 2^(1/8)
            and never below what the finest mesh resolves: 1/512 of the length, 1/96 of the root of the area in 2-D.

    Raises:
        ValueError: if x has another shape, or a sample is NaN, outside the floor or inside a wall; if floor is not of
            dimension 1 or 2; if bandwidth is not positive, or is finer than the finest mesh, or is None while there is
            neither a floor nor a spread of the samples to go by.
    """

    def __init__(self, x: np.ndarray, floor: FloorPlan | None = None, bandwidth: float | None = None) -> None:
        x = np.asarray(x, dtype=np.float64)
        dim = floor.dim if floor is not None else x.shape[-1] if x.ndim == 2 else 0
        if floor is not None and dim not in (1, 2):
            raise ValueError(f"floor must be of dimension 1 or 2, got {dim}")
        if x.ndim != 2 or x.shape[1] != dim or dim not in (1, 2) or len(x) == 0:
            wanted = "1 or 2" if floor is None else dim
            raise ValueError(f"x must have shape (N, d) with N of at least 1 and d = {wanted}, got {x.shape}")
        z = np.ascontiguousarray(x.T)  # few long rows are several times as fast as many short ones
        if not np.isfinite(z).all():
            i = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise ValueError(f"x must be finite, got sample {i} at {x[i].tolist()}")

        self._origin, self._unit = np.zeros((dim, 1)), 1.0  # z = (x - origin) / unit lives on the floor of the mesh
        if floor is None:
            self.bandwidth = _bandwidth_without_floor(z, bandwidth)
            floor, self._origin = _box_in_bandwidths(z, self.bandwidth)
            self._unit = self.bandwidth
            z = (z - self._origin) / self._unit
            smoother = _smoother(floor, 1.0)
        else:
            self.bandwidth = _checked(bandwidth, _finest(floor)) if bandwidth is not None else _rule(floor, z)
            smoother = _smoother(floor, self.bandwidth)

        cell, fraction = smoother.mesh.locate(z)
        if cell.max() == smoother.mesh.size:
            i = int(cell.argmax())
            raise ValueError(f"x must lie inside the floor and outside its walls, got sample {i} at {x[i].tolist()}")
        self._smoother, self._cell, self._fraction = smoother, cell, fraction
        self._corners = _corner_weights(fraction)
        mass = smoother.mesh.deposit(cell, self._corners)
        mass *= 1 / (len(x) * self._unit**dim)
        self._values = smoother.smooth(mass)

    def density(self, points: np.ndarray) -> np.ndarray:
        """Density at the points: (n, d) -> (n,); 0 inside walls and outside the floor.

        Raises:
            ValueError: if points has another shape or is NaN somewhere.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self._origin) or np.isnan(points).any():
            raise ValueError(f"points must have shape (n, {len(self._origin)}) and no NaN, got {points.shape}")
        mesh = self._smoother.mesh
        cell, fraction = mesh.locate((points.T - self._origin) / self._unit)
        found = np.flatnonzero(cell < mesh.size)
        p = np.zeros(len(points))
        p[found] = mesh.interpolate(self._values, cell[found], _corner_weights(fraction[:, found]))
        return p

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Logarithm of `density`: (n, d) -> (n,); -inf where the density is 0. Raises what `density` raises."""
        with np.errstate(divide="ignore"):
            return np.log(self.density(points))

    def leave_one_out(self) -> np.ndarray:
        """Density at each sample of the other N - 1 samples: (N,), in the order of x, never negative; zeros if N = 1.

        The sample's own contribution is removed exactly and the rest divided by N - 1. The bandwidth is that of all N.
        """
        count = len(self._cell)
        if count == 1:
            return np.zeros(1)
        p = self._smoother.mesh.interpolate(self._values, self._cell, self._corners)
        p *= count / (count - 1)
        own = self._smoother.at_itself(self._cell, self._fraction)
        own *= 1 / ((count - 1) * self._unit ** len(self._origin))
        p -= own
        return np.maximum(p, 0.0, out=p)

    def grid_values(self, cells: Sequence[int]) -> np.ndarray:
        """Density at the centres of a regular grid over the floor (over its box, without one), of shape `cells`."""
        centres = [
            nodes[0] + (np.arange(n) + 0.5) / n * (nodes[-1] - nodes[0])
            for n, nodes in zip(cells, self.nodes, strict=True)
        ]
        points = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1)
        return self.density(points.reshape(-1, len(centres))).reshape(points.shape[:-1])

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        """The coordinates of the grid lines, d increasing arrays; they lie on every border and wall face."""
        lines = self._smoother.mesh.lines
        return tuple(o + self._unit * line for o, line in zip(self._origin, lines, strict=True))

    @property
    def values(self) -> np.ndarray:
        """Density at the nodes, of shape (len(nodes[0]), ...); 0 within walls."""
        return self._values.reshape([len(line) for line in self._smoother.mesh.lines])

    @property
    def weights(self) -> np.ndarray:
        """Free volume that each node stands for: sum(values * weights) is exactly the integral of `density`."""
        dim = len(self._origin)
        return (self._smoother.area * self._unit**dim).reshape(self.values.shape)


def density_met(others: np.ndarray, points: np.ndarray, floor: FloorPlan) -> np.ndarray:
    """The density that one more agent meets at each of several points, among N - 1 others; for M crowds of others.

    At each point it is what `KernelDensity.leave_one_out` of that agent and the others gives to the agent, up to
    rounding: it does not count itself, but the bandwidth is chosen for all N. Crowds and points that have a bandwidth
    in common are done together.

    Args:
        others: (M, N-1, d) states on the floor, N of at least 2.
        points: (M, n, d) states on the floor.
        floor: borders and walls, of dimension d = 1 or 2.

    Returns:
        (M, n).

    Raises:
        ValueError: if the shapes do not fit together, or a state is not finite or not on the floor.
    """
    for name, x in (("others", others), ("points", points)):
        if x.ndim != 3 or x.shape[1] == 0 or (len(x), x.shape[2]) != (len(others), floor.dim) or not floor.dim <= 2:
            raise ValueError(f"{name} must have shape (M, agents, {floor.dim}) for M crowds, got {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must be finite")
    count = others.shape[1]
    bandwidth = _rounded(_clusters(floor).spread_with_one_more(others, points), count + 1, floor)
    density = np.empty(bandwidth.shape)
    for h in np.unique(bandwidth):
        smoother, here = _smoother(floor, float(h)), bandwidth == h
        mesh, having = smoother.mesh, np.flatnonzero(here.any(axis=1))
        for crowds in np.array_split(having, math.ceil(len(having) * mesh.size / MOST_NODES)):
            number, point = np.nonzero(here[crowds])
            cell, weights = _place(mesh, others[crowds].reshape(-1, floor.dim))
            cell += np.repeat(np.arange(len(crowds)) * mesh.size, count)
            values = smoother.smooth(mesh.deposit(cell, weights, len(crowds)) / count)
            cell, weights = _place(mesh, points[crowds[number], point])
            density[crowds[number], point] = mesh.interpolate(values, cell + number * mesh.size, weights)
    return density


def _place(mesh: _Mesh, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The cells of states x (n, d), and the weights of the cells' corners."""
    cell, fraction = mesh.locate(np.ascontiguousarray(x.T))
    if cell.max() == mesh.size:
        raise ValueError(f"states must be on the floor, outside its walls, got {x[cell.argmax()].tolist()}")
    return cell, _corner_weights(fraction)


# --- the bandwidth ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _finest(floor: FloorPlan) -> float:
    """Width of the cells of the finest mesh, and the least bandwidth."""
    sides = np.subtract(floor.high, floor.low)
    return float(max(np.prod(sides) ** (1 / floor.dim) / FINE[floor.dim], sides.max() / LONGEST[floor.dim]))


def _checked(bandwidth: float, finest: float) -> float:
    if not isinstance(bandwidth, Real) or not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth must be a positive number, got {bandwidth!r}")
    if bandwidth < finest:
        raise ValueError(f"bandwidth must be at least {finest:.3g}, what the finest mesh resolves, got {bandwidth!r}")
    return float(bandwidth)


def _rule(floor: FloorPlan, z: np.ndarray) -> float:
    """The bandwidth chosen from the samples z (d, N) on the floor."""
    return float(_rounded(_clusters(floor).spread(z), z.shape[1], floor))


def _rounded(spread: np.ndarray | float, n: int, floor: FloorPlan) -> np.ndarray:
    """The bandwidth for n samples of this spread."""
    finest = _finest(floor)
    wanted = np.maximum(1.2 * spread * n ** (-1 / (floor.dim + 4)), finest)
    return np.maximum(2.0 ** (np.round(LADDER * np.log2(wanted)) / LADDER), finest)


def _bandwidth_without_floor(z: np.ndarray, bandwidth: float | None) -> float:
    """The same rule on the bounding square of the samples, or the bandwidth asked for."""
    d = len(z)
    low = z.min(axis=1, keepdims=True)
    side = float((z.max(axis=1, keepdims=True) - low).max())
    unit_square = FloorPlan((0.0,) * d, (1.0,) * d)
    if bandwidth is not None:
        return _checked(bandwidth, side * _finest(unit_square))
    if side == 0:
        raise ValueError("bandwidth must be given where all samples coincide and there is no floor, got None")
    return side * _rule(unit_square, (z - low) / side)


def _box_in_bandwidths(z: np.ndarray, bandwidth: float) -> tuple[FloorPlan, np.ndarray]:
    """A box around the samples, measured in bandwidths and rounded up to the ladder, and where its lower corner is."""
    low, high = z.min(axis=1, keepdims=True), z.max(axis=1, keepdims=True)
    sides = (high - low) / bandwidth + 2 * REACH
    sides = 2.0 ** (np.ceil(LADDER * np.log2(sides)) / LADDER)
    floor = FloorPlan((0.0,) * len(z), tuple(sides[:, 0].tolist()))
    return floor, (low + high) / 2 - sides / 2 * bandwidth


class _Clusters:
    """How wide the clusters of a crowd are, from pairs of agents on a coarse regular grid.

    In a histogram of a normal crowd of standard deviation s, with cells of width c, adjacent cells share rho times as
    many pairs of agents as a cell has within: rho = exp(-c^2 / 2v), v = 2 s^2 + c^2 / 6. Clusters far apart add to
    both numbers alike: rho tells the width of the clusters where the standard deviation tells their distance.
    Only pairs of distinct agents count, so rho has no bias from the noise of the histogram; one imaginary pair on each
    face between two cells draws rho to 1, a wide crowd, where there are too few agents to tell. Counts are per free
    area of a cell, and a pair of cells weighs by the square of the lesser free fraction.
    """

    def __init__(self, floor: FloorPlan) -> None:
        sides = np.subtract(floor.high, floor.low)
        cells = np.maximum(1, np.round(sides / np.prod(sides) ** (1 / floor.dim) * COARSE[floor.dim])).astype(int)
        free = floor.free_fraction(tuple(cells.tolist()))
        self.sides, self.low, self.per_unit = sides.tolist(), np.array(floor.low)[:, None], (cells / sides)[:, None]
        self.last, self.stride = cells[:, None] - 1, cells[-1]
        self.scale = np.divide(1.0, free, where=free > 0, out=np.zeros(free.shape)).ravel()
        self.pairs, self.half_degree = [], np.zeros(self.scale.size)
        for axis in range(floor.dim):
            step = 1 if axis == floor.dim - 1 else self.stride
            weight = np.minimum(free, np.roll(free, -1, axis)) ** 2
            weight.swapaxes(0, axis)[-1] = 0.0
            self.pairs.append((step, weight.ravel()[:-step]))
            self.half_degree += (weight + np.roll(weight, 1, axis)).ravel() / 2
        weights = [float(weight.sum()) for _, weight in self.pairs]
        self.imaginary = max(sum(weights), 1.0)
        self.width_squared = float(weights @ (sides / cells) ** 2 / self.imaginary)

    def spread(self, z: np.ndarray) -> float:
        """Standard deviation of the crowd z (d, N), or of its clusters if that is less."""
        d, n = z.shape
        centred = z - z.mean(axis=1, keepdims=True)
        variances = [float(row @ row) / n for row in centred]
        if min(variances) == 0:
            return 0.0
        # the narrower axis decides, for there is one bandwidth, unless it is the floor that is narrow
        precision = sum(max(1 / v - 12 / side**2, 0.0) for v, side in zip(variances, self.sides, strict=True)) / d
        variance = 1 / max(precision, d / sum(variances))

        count = np.bincount(self._cell(z), minlength=self.scale.size) * self.scale
        adjacent = sum((count[step:] * count[:-step]) @ weight for step, weight in self.pairs)
        same = (count * (count - self.scale)) @ self.half_degree
        rho = float((adjacent + self.imaginary) / (same + self.imaginary))
        if rho < 1:
            within = self.width_squared * (1 / (-4 * math.log(rho)) - 1 / 12)
            variance = min(variance, max(within, self.width_squared / 16))
        return math.sqrt(variance)

    def spread_with_one_more(self, others: np.ndarray, points: np.ndarray) -> np.ndarray:
        """`spread` of each of M crowds and one more agent, at each of n points: (M, N-1, d), (M, n, d) -> (M, n)."""
        crowds, count, d = others.shape
        mean = others.mean(axis=1, keepdims=True)
        variances = (others.var(axis=1, keepdims=True) + (points - mean) ** 2 / (count + 1)) * (count / (count + 1))
        with np.errstate(divide="ignore"):
            precision = np.maximum(1 / variances - 12 / np.square(self.sides), 0.0).sum(axis=-1) / d
            variance: np.ndarray = 1 / np.maximum(precision, d / variances.sum(axis=-1))

        size, row = self.scale.size, np.arange(crowds)[:, None]
        taken = (row * size + self._cell(others.reshape(-1, d).T).reshape(crowds, count)).ravel()
        n = np.bincount(taken, minlength=crowds * size).reshape(crowds, size) * self.scale
        same, around = (n * (n - self.scale)) @ self.half_degree, np.zeros(n.shape)
        for step, weight in self.pairs:
            around[:, step:] += weight * n[:, :-step]
            around[:, :-step] += weight * n[:, step:]
        adjacent = (n * around).sum(axis=1) / 2
        # one more agent in a cell: so many more pairs with adjacent cells, and within
        cell = self._cell(points.reshape(-1, d).T).reshape(points.shape[:2])
        pairs = adjacent[:, None] + (self.scale * around)[row, cell] + self.imaginary
        rho = pairs / (same[:, None] + (2 * self.scale * self.half_degree * n)[row, cell] + self.imaginary)
        with np.errstate(divide="ignore"):
            within = self.width_squared * (0.25 / np.log(1 / np.minimum(rho, 1.0)) - 1 / 12)  # infinite at 1
        return np.sqrt(np.minimum(variance, np.maximum(within, self.width_squared / 16)))

    def _cell(self, z: np.ndarray) -> np.ndarray:
        u = np.minimum(np.maximum((z - self.low) * self.per_unit, 0.0), self.last).astype(np.intp)
        return u[0] if len(u) == 1 else u[0] * self.stride + u[1]


# --- the mesh --------------------------------------------------------------------------------------------------------


class _Mesh:
    """Rectangular cells no wider than `width`, with edges on every border and face, numbered by their lower corners.

    Arrays of cells have the shape of the nodes, with a last row and column that is not free; 1-D has one column only.
    """

    def __init__(self, floor: FloorPlan, width: float) -> None:
        d = floor.dim
        walls = _walls(floor)
        self.faces = [_faces(floor, walls, axis) for axis in range(d)]
        # positions are measured in cells, of equal size between one face and the next
        self.marks = [np.cumsum([0, *np.ceil(np.diff(faces) / width - 1e-9)]) for faces in self.faces]
        self.lines = [
            np.interp(np.arange(marks[-1] + 1), marks, faces)
            for marks, faces in zip(self.marks, self.faces, strict=True)
        ]
        self.widths = [np.diff(line) for line in self.lines]
        self.last = np.array([[len(w) - 1] for w in self.widths])
        self.shape = (len(self.lines[0]), len(self.lines[1]) if d == 2 else 1)
        self.size = self.shape[0] * self.shape[1]
        self.strides = (1,) if d == 1 else (self.shape[1], 1)
        self.corner_steps = [int(np.dot(ends, self.strides)) for ends in product((0, 1), repeat=d)]

        centres = [line[:-1] + w / 2 for line, w in zip(self.lines, self.widths, strict=True)]
        free = _outside(walls, centres)
        area = free * (self.widths[0] if d == 1 else np.multiply.outer(*self.widths))
        self.cell_area = np.zeros(self.shape)
        self.cell_area[: free.shape[0], : area.size // free.shape[0]] = area.reshape(free.shape[0], -1)
        self.free = self.cell_area.ravel() > 0

    def locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cell of each point x (d, n), `size` if not on the floor, and where in it, in [0, 1]: (n,), (d, n)."""
        u = np.empty(x.shape)
        for row, faces, marks, out in zip(x, self.faces, self.marks, u, strict=True):
            out[:] = np.interp(row, faces, marks, left=-1.0, right=-1.0)
        index = np.minimum(u.astype(np.intp), self.last)
        cell = self._number(index)
        fraction = u - index
        if u.min(initial=0.0) < 0 or not self.free.take(cell).all():
            outside = np.any(u < 0, axis=0)
            lost = np.flatnonzero(outside | ~self.free[cell])
            cell[lost] = self.size
            lost = lost[~outside[lost]]
            # a point on a wall's face, up to rounding, is on the floor, in the free cell at the other side of the face
            for nudge in product((-1e-6, 1e-6), repeat=len(x)):
                near = np.clip((u[:, lost] + np.array(nudge)[:, None]).astype(np.intp), 0, self.last)
                found = self.free[self._number(near)]
                cell[lost[found]] = self._number(near[:, found])
                fraction[:, lost[found]] = np.clip(u[:, lost[found]] - near[:, found], 0.0, 1.0)
                lost = lost[~found]
        return cell, fraction

    def _number(self, index: np.ndarray) -> np.ndarray:
        return index[0] if len(index) == 1 else index[0] * self.shape[1] + index[1]

    def deposit(self, cell: np.ndarray, weights: list[np.ndarray], crowds: int = 1) -> np.ndarray:
        """Sum of the points' weights at each node, (crowds, *shape); the cells of crowd k are numbered from k size."""
        mass = np.zeros(crowds * self.size)
        for step, weight in zip(self.corner_steps, weights, strict=True):
            mass[step:] += np.bincount(cell, weight, len(mass) - step)
        return mass.reshape(crowds, *self.shape)

    def interpolate(self, values: np.ndarray, cell: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """The function with these values at the nodes, at each point: (n,); crowds are numbered as for `deposit`."""
        values = values.ravel()
        result = np.zeros(len(cell))
        for step, weight in zip(self.corner_steps, weights, strict=True):
            term = values[step:].take(cell)
            term *= weight
            result += term
        return result


def _corner_weights(fraction: np.ndarray) -> list[np.ndarray]:
    """Multilinear weights of the 2^d corners of each cell, in the order of `corner_steps`: (d, n) -> 2^d times (n,)."""
    below = 1.0 - fraction
    if len(fraction) == 1:
        return [below[0], fraction[0]]
    return [below[0] * below[1], below[0] * fraction[1], fraction[0] * below[1], fraction[0] * fraction[1]]


def _faces(floor: FloorPlan, walls: np.ndarray, axis: int) -> np.ndarray:
    """Where borders and wall faces cut this axis, increasing; those closer than 1e-9 of its length count once."""
    low, high = floor.low[axis], floor.high[axis]
    faces = np.unique(np.clip([low, high, *walls[:, :, axis].flat], low, high))
    faces = faces[np.append(True, np.diff(faces) > 1e-9 * (high - low))]
    faces[-1] = high
    return faces


def _outside(walls: np.ndarray, coordinates: list[np.ndarray]) -> np.ndarray:
    """Which points of the rectangular grid with these coordinates are in no wall."""
    free = np.ones([len(c) for c in coordinates], dtype=bool)
    for lower, upper in walls:
        inside = [(low < c) & (c < high) for low, high, c in zip(lower, upper, coordinates, strict=True)]
        free[np.ix_(*inside)] = False
    return free


def _walls(floor: FloorPlan) -> np.ndarray:
    """Walls as an array (walls, 2, d), with a tiny one more wherever two touch at a corner only: such a gap is shut."""
    walls = np.array(floor.walls).reshape(-1, 2, floor.dim)
    if floor.dim == 1:
        return walls
    x, y = (_faces(floor, walls, axis) for axis in (0, 1))
    free = _outside(walls, [(x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2])
    (a, b), (c, d) = (free[:-1, :-1], free[:-1, 1:]), (free[1:, :-1], free[1:, 1:])
    i, j = np.nonzero((a == d) & (b == c) & (a != b))
    corners = np.stack([x[i + 1], y[j + 1]], axis=-1)
    half = 1e-6 * np.subtract(floor.high, floor.low)
    return np.concatenate([walls, np.stack([corners - half, corners + half], axis=1)])


# --- the smoothing ---------------------------------------------------------------------------------------------------


class _Smoother:
    """The heat semigroup on the nodes of a floor's mesh, for one bandwidth.

    Deposit and interpolation spread a sample by the variance c^2 / 6 each, on average, where cells have the width c;
    the semigroup supplies the rest of bandwidth^2.
    """

    def __init__(self, floor: FloorPlan, bandwidth: float) -> None:
        self.mesh = mesh = _Mesh(floor, max(bandwidth / 2, _finest(floor)))
        d = floor.dim
        half = [_to_nodes(mesh.cell_area, axis) for axis in range(d)]  # free area along the grid lines across `axis`
        self.area = half[0] if d == 1 else _to_nodes(half[0], 1)
        self.inverse_area = np.divide(1.0, self.area, where=self.area > 0, out=np.zeros(mesh.shape))
        # conductance of a unit of area; a unit of time then adds the variance bandwidth^2 - w^2 / 3
        flow = [(bandwidth**2 - w**2 / 3) / (2 * w**2) for w in mesh.widths]
        if d == 1:
            x_kernels, x_index = _heat(flow[0] / 2 * mesh.cell_area[:-1].T, self.area.T)
            y_kernels, y_index = np.ones((1, 1, 1)), np.zeros(mesh.shape[0], dtype=int)  # there is one column
        else:
            x_kernels, x_index = _heat(flow[0] / 2 * half[1][:-1].T, self.area.T)
            y_kernels, y_index = _heat(flow[1] * half[0][:, :-1], self.area)
        self.columns, self.rows = _runs(x_kernels, x_index), _runs(y_kernels, y_index)
        self.own = self._own(x_kernels[x_index], y_kernels[y_index])

    def smooth(self, mass: np.ndarray) -> np.ndarray:
        """The density at the nodes from the mass at the nodes: (crowds, *shape) -> (crowds, *shape)."""
        columns = _along(self.columns, (mass * self.inverse_area).transpose(2, 0, 1))
        rows = _along(self.rows, columns.transpose(2, 1, 0))
        return np.ascontiguousarray(_along(self.columns, rows.transpose(2, 1, 0)).transpose(1, 2, 0))

    def at_itself(self, cell: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Density of a unit mass at its own place: a quadratic in each coordinate of where it is in its cell."""
        below = 1.0 - fraction
        powers = [below * below, below * fraction, fraction * fraction]
        result = np.zeros(len(cell))
        for x_power, tables in zip(powers, self.own, strict=True):
            inner = tables[0].take(cell)
            if len(tables) > 1:  # in two dimensions
                inner *= powers[0][1]
                for y_power, table in zip(powers[1:], tables[1:], strict=True):
                    term = table.take(cell)
                    term *= y_power[1]
                    inner += term
            inner *= x_power[0]
            result += inner
        return result

    def _own(self, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
        """Coefficients of `at_itself`, (3, 3 or 1, size), from matrices of columns (ny, nx, nx) and rows (nx, ny, ny).

        They are sums over pairs of corners of a cell of the density that a unit mass at one makes at the other.
        """
        nx, ny = self.mesh.shape
        cells_x, cells_y = nx - 1, max(ny - 1, 1)
        back = along_x * self.inverse_area.T[:, None, :]  # the last half step, transposed
        column = np.arange(cells_y)
        y_ends = (0, 1) if ny > 1 else (0,)
        own = np.zeros((3, 2 * len(y_ends) - 1, nx, ny))
        for x0, x1, y0, y1 in product((0, 1), (0, 1), y_ends, y_ends):
            first = along_x[y0 : y0 + cells_y, x0 : x0 + cells_x]
            between = along_y[:, column + y0, column + y1]
            last = back[y1 : y1 + cells_y, x1 : x1 + cells_x]
            own[x0 + x1, y0 + y1, :cells_x, :cells_y] += np.einsum("yxa,ay,yxa->xy", first, between, last)
        return own.reshape(3, -1, nx * ny)


def _to_nodes(area: np.ndarray, axis: int) -> np.ndarray:
    """Half of each cell to the grid line before it along the axis, half to the one behind it."""
    return (area + np.roll(area, 1, axis)) / 2


def _heat(flow: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The heat semigroup at time 1 on lines of n nodes with masses `area` (lines, n), conductances `flow` (lines, n-1).

    Returns one matrix for each distinct line, (k, n, n), and which of them each line has, (lines,). All sums are of
    numbers that are not negative: each entry is accurate to rounding, and exactly zero across a wall.
    """
    inverse = np.divide(1.0, area, where=area > 0, out=np.zeros(area.shape))
    rates = np.hstack([flow * inverse[:, :-1], flow * inverse[:, 1:]])
    _, first, index = np.unique(np.round(rates, 9), axis=0, return_index=True, return_inverse=True)
    n = area.shape[1]
    i = np.arange(n)
    jumps = np.zeros((len(first), n, n))
    jumps[:, i[:-1], i[1:]], jumps[:, i[1:], i[:-1]] = np.hsplit(rates[first], 2)
    leaving = jumps.sum(axis=-1)
    jumps[:, i, i] = leaving.max() - leaving  # exp(L + c I), and c drops out when rows are scaled to one
    doublings = max(0, math.ceil(math.log2(leaving.max()) + 6))
    jumps *= 0.5**doublings
    kernel = np.eye(n) + jumps / 7
    for order in range(6, 0, -1):  # Taylor, by Horner's rule: rows of jumps sum to at most 1/64
        kernel = np.eye(n) + jumps @ kernel / order
    for _ in range(doublings):
        kernel /= kernel.sum(axis=-1, keepdims=True)
        kernel = kernel @ kernel
    return kernel / kernel.sum(axis=-1, keepdims=True), index.ravel()


def _runs(kernels: np.ndarray, index: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """Neighbouring lines with the same matrix, together: (its transpose, first line, line after the last)."""
    kernels = np.ascontiguousarray(kernels.transpose(0, 2, 1))
    cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
    return [(kernels[index[start]], start, stop) for start, stop in pairwise(cuts)]


def _along(runs: list[tuple[np.ndarray, int, int]], lines: np.ndarray) -> np.ndarray:
    """Each line of each crowd times the line's matrix: (lines, crowds, n) -> (lines, crowds, n)."""
    lines = np.ascontiguousarray(lines)
    result = np.empty_like(lines)
    n = lines.shape[2]
    for kernel, start, stop in runs:
        np.dot(lines[start:stop].reshape(-1, n), kernel, out=result[start:stop].reshape(-1, n))
    return result


_clusters = lru_cache(maxsize=64)(_Clusters)
_smoother = lru_cache(maxsize=128)(_Smoother)
