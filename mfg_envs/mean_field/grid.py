"""The crowd on a grid: the cells of a floor that is cut along every wall face, and mu_t as a mass in each. Ours.

A `Mesh` has no cut cells: each is wholly floor or wholly wall, and all are of nearly the same size (of the same where
the faces allow, as 80 cells across the four rooms do). From a cell one gets to the next unless there is a wall or the
border between them, and then one is mirrored back. Both stencils of the mesh walk that way, one axis after the other,
each order of the axes counting half; so neither reaches into a wall, through one, or past the border.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product

import numpy as np
from array_api_compat import array_namespace, device
from scipy import sparse

from mfg_envs.games.base import Array
from mfg_envs.games.floor_plan import FloorPlan
from mfg_envs.mean_field.base import MeanField

LEAST_CELLS = 4
EMPTY = -600.0  # log density that stands for none
MOST_CURVATURE = 0.25
ON_A_FACE = 1e-9  # of a box's side: what rounding may carry a point on a face into the wall behind it


class Mesh:
    """Rectangular cells on the floor, with faces on every border and wall.

    Args:
        floor: borders and walls, of dimension 1 or 2.
        cells: how many cells there should be across the longest side of the box. As many of about that size as fit
            are put between each pair of faces, at least one.

    Attributes:
        lines: d increasing arrays, the coordinates of the cells' faces.
        shape: number of cells along each axis, walls included.
        free: bool of that shape, which cells are floor. The n free cells are numbered in C order.
        centres, widths: (n, d), of the free cells.
        volume: (n,), the integral of each cell's spline: the volume of the cell, where cells are of equal size.

    Raises:
        ValueError: if cells is not an integer of at least 4, or the floor is not of dimension 1 or 2.
    """

    def __init__(self, floor: FloorPlan, cells: int) -> None:
        if floor.dim not in (1, 2):
            raise ValueError(f"a grid needs a state of dimension 1 or 2, got {floor.dim}")
        if isinstance(cells, bool) or not isinstance(cells, (int, np.integer)) or cells < LEAST_CELLS:
            raise ValueError(f"cells must be an integer of at least {LEAST_CELLS}, got {cells!r}")
        self.floor, self.cells = floor, int(cells)
        d, width = floor.dim, max(np.subtract(floor.high, floor.low)) / cells
        walls = np.array(floor.walls).reshape(-1, 2, d)
        self.lines = []
        for axis in range(d):
            low, high = floor.low[axis], floor.high[axis]
            faces = np.unique(np.clip([low, high, *walls[:, :, axis].flat], low, high))
            faces = faces[np.append(True, np.diff(faces) > ON_A_FACE * (high - low))]
            faces[-1] = high
            marks = np.cumsum([0, *np.maximum(1, np.round(np.diff(faces) / width))])
            self.lines.append(np.interp(np.arange(marks[-1] + 1), marks, faces))
        self.shape = tuple(len(line) - 1 for line in self.lines)
        middles = np.meshgrid(*((line[1:] + line[:-1]) / 2 for line in self.lines), indexing="ij")
        sides = np.meshgrid(*(np.diff(line) for line in self.lines), indexing="ij")
        self.free = floor.contains(np.stack(middles, axis=-1).reshape(-1, d)).reshape(self.shape)
        self.centres, self.widths = (np.stack([a[self.free] for a in arrays], axis=-1) for arrays in (middles, sides))

        number = np.full(np.add(self.shape, 2), -1)
        number[(slice(1, -1),) * d][self.free] = np.arange(len(self.centres))
        self._number = number
        own = np.arange(len(self.centres))
        self.neighbours = np.empty((d, 3, len(own)), dtype=np.intp)  # the cell before, itself, the cell behind
        for axis in range(d):
            for i, step in enumerate((-1, 0, 1)):
                there = np.roll(number, -step, axis)[(slice(1, -1),) * d][self.free]
                self.neighbours[axis, i] = np.where(there < 0, own, there)
        around = [self.widths[self.neighbours[axis], axis] for axis in range(d)]
        self._ratio = [w[1] / (w[1] + w) for w in around]  # h / (h + h of the neighbour), (3, n)
        self.volume = math.prod(w.mean(axis=0) for w in around)

    def __len__(self) -> int:
        return len(self.centres)

    def locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The free cell of each point, and where in it, in [0, 1]^d: x (n, d) -> (n,), (n, d); -1 where there is none.

        A point on a face, up to rounding, is in the free cell at either side of it.
        """
        cell, fraction = self._find(x)
        margin = ON_A_FACE * np.subtract(self.floor.high, self.floor.low)
        inside = np.all((x >= self.floor.low - margin) & (x <= self.floor.high + margin), axis=1)  # NaN is not
        cell[~inside] = -1
        lost = np.flatnonzero((cell < 0) & inside)
        for nudge in product((-1, 1), repeat=x.shape[1]):
            if len(lost) == 0:
                break
            cell[lost], fraction[lost] = self._find(x[lost] + nudge * margin)
            lost = lost[cell[lost] < 0]
        return cell, np.clip(fraction, 0.0, 1.0)

    def _find(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the cell, -1 in walls, and where in it; the cells at the border reach beyond it."""
        index, fraction = np.empty(x.shape, dtype=np.intp), np.empty(x.shape)
        for axis, line in enumerate(self.lines):
            i = np.clip(np.searchsorted(line, x[:, axis], side="right") - 1, 0, len(line) - 2)
            index[:, axis], fraction[:, axis] = i, (x[:, axis] - line[i]) / (line[i + 1] - line[i])
        return self._number[tuple(index.T + 1)], fraction

    def spline(self, x: np.ndarray) -> sparse.csr_array:
        """Weights of the quadratic B-splines of the cells at each point: x (m, d) -> sparse (m, n).

        The knots are the faces of the cells. So the weights are not negative, sum to one, and have the point as their
        mean (where no wall is near, for which the stencil is mirrored); their variance is a quarter of a cell's width
        squared, wherever in the cell the point is, where cells are of one size.
        """
        cell, f = self.locate(x)
        if len(cell) and cell.min() < 0:
            i = int(np.argmin(cell))
            raise ValueError(f"states must be on the floor, outside its walls, got {x[i].tolist()}")
        return self._stencil(cell, self.spline_weights(cell, f))

    @cached_property
    def spline_at_centres(self) -> sparse.csr_array:
        """`spline` at the centres of the cells, (n, n)."""
        return self.spline(self.centres)

    def linear(self, x: np.ndarray) -> sparse.csr_array:
        """Weights of multilinear interpolation between the centres of the cells: x (m, d) -> sparse (m, n).

        Rows of points that are not on the floor are empty.
        """
        cell, f = self.locate(x)
        weights = self.linear_weights(np.maximum(cell, 0), f)
        for w in weights:
            w[:, cell < 0] = 0.0
        return self._stencil(np.maximum(cell, 0), weights)

    def spline_weights(self, cell: np.ndarray, f: np.ndarray) -> list[np.ndarray]:
        """Weights of the cell before, of the cell and of the one behind along each axis, (3, m)."""
        weights = []
        for ratio, along in zip(self._ratio, f.T, strict=True):
            before, behind = ratio[0][cell] * (1 - along) ** 2, ratio[2][cell] * along**2
            weights.append(np.stack([before, 1 - before - behind, behind]))
        return weights

    def linear_weights(self, cell: np.ndarray, f: np.ndarray) -> list[np.ndarray]:
        """The same for interpolation between centres."""
        weights = []
        for ratio, along in zip(self._ratio, 2 * f.T - 1, strict=True):
            before, behind = ratio[0][cell] * np.maximum(-along, 0), ratio[2][cell] * np.maximum(along, 0)
            weights.append(np.stack([before, 1 - before - behind, behind]))
        return weights

    @cached_property
    def _reached(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells of each cell's stencil, (n, 3^d): along the first axis first, and along the last axis first."""
        if len(self.neighbours) == 1:
            cells = self.neighbours[0].T
            return cells, cells
        first, second = self.neighbours
        one, other = second[:, first].swapaxes(0, 1), first[:, second]  # (3, 3, n): along x then y, y then x
        return one.reshape(9, -1).T, other.reshape(9, -1).T

    def around(self, values: np.ndarray) -> np.ndarray:
        """What the stencil of each cell reads of values (n,): (3^d, n). `combine` weighs it."""
        one, other = self._reached
        return (values[one.T] + values[other.T]) / 2

    def combine(self, around: np.ndarray, cell: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """Weighted sums at points in the cells (m,): (m,). As the sparse stencils, but faster for few points."""
        sums = around.take(cell, axis=1)
        for w in weights:
            sums = (sums.reshape(3, len(sums) // 3, len(cell)) * w[:, None]).sum(axis=0)
        return sums[0]

    def _stencil(self, cell: np.ndarray, weights: list[np.ndarray]) -> sparse.csr_array:
        """The weights of each point, (3, m) for each axis, at the cells that one gets to from `cell` (m,)."""
        one, other = self._reached
        columns, values = one[cell].T, weights[0]
        if len(weights) == 2:
            values = (weights[0][:, None] * weights[1][None]).reshape(9, -1)
            across = np.flatnonzero((one != other).any(axis=1)[cell])
            if len(across):
                rest = other[cell[across]].T
                half = values[:, across] / 2
                columns = np.hstack([columns, rest])
                values[:, across] = half
                values = np.hstack([values, half])
                rows = np.append(np.arange(len(cell)), across)
                entries = (values.ravel(), (np.tile(rows, 9), columns.ravel()))
                matrix = sparse.csr_array(entries, shape=(len(cell), len(self)))
                matrix.sum_duplicates()
                return matrix
        ends = np.arange(len(cell) + 1) * len(columns)
        columns = np.ascontiguousarray(columns.T, dtype=np.int32)
        return sparse.csr_array((values.T.ravel(), columns.ravel(), ends), shape=(len(cell), len(self)))


class Grid(MeanField):
    """mu_t for t = 0, ..., T as masses of the cells of a mesh: the crowd of the grid oracle.

    The density of a cell is its mass over its volume. In between, the log density is a quadratic spline, mirrored at
    walls and borders: it is continuous on the floor and knows nothing of what is behind a wall. Splines of the log are
    exact for Gaussian laws; between cells of very different mass, they are kept within 0.25 of multilinear
    interpolation.

    Args:
        mesh: the cells.
        masses: (T+1, n), of the free cells, each row summing to one.
        mean_actions: (T, k), the crowd's mean projected actions, if known.

    Raises:
        ValueError: if the shapes do not fit together, or masses are negative or do not sum to one.
    """

    def __init__(self, mesh: Mesh, masses: np.ndarray, mean_actions: np.ndarray | None = None) -> None:
        self.mesh, self.masses = mesh, np.asarray(masses, dtype=np.float64)
        if self.masses.ndim != 2 or self.masses.shape[1] != len(mesh):
            raise ValueError(f"masses must have shape (T+1, {len(mesh)}), got {self.masses.shape}")
        if not (self.masses.min() >= 0 and np.allclose(self.masses.sum(axis=1), 1, atol=1e-9)):
            raise ValueError("masses must not be negative, and must sum to one at each t")
        self.horizon, self.dim = len(self.masses) - 1, mesh.floor.dim
        self.mean_actions = None if mean_actions is None else np.asarray(mean_actions, dtype=np.float64)
        if self.mean_actions is not None and (self.mean_actions.ndim != 2 or len(self.mean_actions) != self.horizon):
            raise ValueError(f"mean_actions must have shape ({self.horizon}, k), got {self.mean_actions.shape}")

    @property
    def floor(self) -> FloorPlan:
        """Borders and walls, which the density respects."""
        return self.mesh.floor

    def at(self, t: int) -> GridDistribution:
        """mu_t, for t = 0, ..., T."""
        self._check_time(t)
        return self._laws[t]

    @cached_property
    def _laws(self) -> list[GridDistribution]:
        """mu_t at each t; they keep what look-ups need."""
        actions = [None] * (self.horizon + 1) if self.mean_actions is None else [*self.mean_actions, None]
        return [GridDistribution(self.mesh, mass, a) for mass, a in zip(self.masses, actions, strict=True)]

    @property
    def density(self) -> np.ndarray:
        """Density of every cell, (T+1, *mesh.shape); 0 in walls."""
        density = np.zeros((self.horizon + 1, *self.mesh.shape))
        density[:, self.mesh.free] = self.masses / self.mesh.volume
        return density

    @cached_property
    def means(self) -> np.ndarray:
        """Mean states, (T+1, d)."""
        return self.masses @ self.mesh.centres


class GridDistribution:
    """A law on the cells of a mesh: mass (n,), and the crowd's mean action (k,) if known."""

    def __init__(self, mesh: Mesh, mass: np.ndarray, action: np.ndarray | None = None) -> None:
        self.mesh, self.mass, self.action = mesh, mass, action

    @property
    def mean(self) -> np.ndarray:
        """Mean state, (d,)."""
        return self.mass @ self.mesh.centres

    @property
    def mean_action(self) -> np.ndarray:
        """Mean action, (k,).

        Raises:
            ValueError: if it is not known, as at T.
        """
        if self.action is None:
            raise ValueError("this crowd on a grid has no mean action: none was given, or its time is T")
        return self.action

    def log_density(self, x: Array) -> Array:
        """Log of the density, in the library of x: (n, d) -> (n,); -inf inside walls and outside the floor."""
        xp = array_namespace(x)
        points = x if isinstance(x, np.ndarray) else np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        points = points.astype(np.float64, copy=False)
        mesh, (cell, f) = self.mesh, self.mesh.locate(points)
        found, inside = np.full(len(points), -np.inf), cell >= 0
        cell, f = cell[inside], f[inside]
        linear = mesh.combine(self._logs_around, cell, mesh.linear_weights(cell, f))
        curved = mesh.combine(self._spline_around, cell, mesh.spline_weights(cell, f))
        value = linear + np.clip(curved - linear, -MOST_CURVATURE, MOST_CURVATURE)
        found[inside] = np.where(value > EMPTY / 2, value, -np.inf)
        return xp.asarray(found, dtype=x.dtype, device=device(x))

    @cached_property
    def _logs(self) -> np.ndarray:
        """Log densities of the cells, (n,)."""
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(self.mass / self.mesh.volume), EMPTY)

    @cached_property
    def _logs_around(self) -> np.ndarray:
        return self.mesh.around(self._logs)

    @cached_property
    def _spline_around(self) -> np.ndarray:
        """Coefficients of a quadratic spline through `_logs` up to terms of fourth order, exact for quadratics."""
        return self.mesh.around(2 * self._logs - self.mesh.spline_at_centres @ self._logs)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n independent states, (n, d): a cell by its mass, then uniform in it."""
        cell = rng.choice(len(self.mesh), size=n, p=self.mass / self.mass.sum())
        return self.mesh.centres[cell] + (rng.random((n, self.mesh.floor.dim)) - 0.5) * self.mesh.widths[cell]
