"""Nearest neighbours among features, blockwise: exact, and never a full distance matrix.

Every squared distance is first screened by a matrix product in low precision, whose error has
a bound. What the bound leaves open is computed again from differences, so the answers are
those of a full float64 matrix whatever the screen, but for ties closer than 1e-6. Memory
beyond the features: a few blocks of 16 MB, on a GPU of 128 MB.

Shapes: N, M = images, D = features, k = neighbours, R, C = rows and columns of a block,
P = pairs.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from cbdm_scale.devices import ieee_fp32

BLOCK = 2048
GPU_COLUMNS = 16_384  # of a block on a GPU, where many small ones would wait for the host
TILE = 64  # columns of a block whose smallest distance is looked at first
SPARE = 16  # candidates kept beyond the k-th neighbour for the exact look
PAIRS = 512  # pairs of images compared exactly at once: their features stay in the cache
GPU_PAIRS = 16_384
TIE = 1 + 1e-6  # squared distances this close are equal

Screen = torch.dtype | None
"""Precision of the screen: float32, bfloat16, or None for the faster one on this machine."""
Pairs = tuple[Tensor, Tensor]
"""Positions (P,) and (P,) in the first and second set."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest images, nearest first."""

    distance: Tensor
    """(N, k) Euclidean, float64."""

    index: Tensor
    """(N, k) positions, int64."""


@cache
def _bfloat16_is_faster() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, by trial."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(256, 1024, dtype=dtype)
        a @ a.T  # the first call prepares
        tries = []
        for _ in range(3):
            begin = time.perf_counter()
            a @ a.T
            tries.append(time.perf_counter() - begin)
        seconds.append(min(tries))
    return seconds[1] < 0.8 * seconds[0]


def _choose(screen: Screen, x: Tensor) -> torch.dtype:
    if screen is not None:
        return screen
    large = x.shape[1] >= 512 and len(x) >= 2 * BLOCK and x.device.type == "cpu"
    return torch.bfloat16 if large and _bfloat16_is_faster() else torch.float32


def _on_gpu(x: Tensor) -> bool:
    """Whether blocks are wide, and nothing waits to know what need not be computed."""
    return x.device.type != "cpu"


def _columns(x: Tensor) -> int:
    """Columns of a block: as many as rows, or more on a GPU."""
    return GPU_COLUMNS if _on_gpu(x) else BLOCK


class _Side:
    """One set of features x (N, D) with what the screen needs to know of it."""

    def __init__(self, x: Tensor, origin: Tensor, dtype: torch.dtype):
        self.x = x
        self.origin = origin  # (D,) taken off before products, or they lose digits
        self.dtype = dtype
        self.square = torch.empty(len(x), dtype=torch.float64, device=x.device)  # |x|^2
        self.residual = torch.empty_like(self.square)  # (N,) norm of what dtype cannot hold
        for begin in range(0, len(x), BLOCK):
            centred = x[begin : begin + BLOCK].float() - origin
            rest = centred - centred.to(dtype).float()
            self.square[begin : begin + BLOCK] = torch.linalg.vecdot(centred, centred)
            self.residual[begin : begin + BLOCK] = torch.linalg.vecdot(rest, rest)
        self.norm = self.square.sqrt()
        self.residual = self.residual.sqrt() + 2.0**-23 * self.norm

    def block(self, begin: int, size: int) -> Tensor:
        """Centred features of a block, in the precision of the screen."""
        block: Tensor = self.x[begin : begin + size].float() - self.origin
        return block.to(self.dtype)

    def error(self, other: "_Side", limit: Tensor) -> Tensor:
        """Bound on the error of screened squared distances to the other side, near limit (N,).

        Rounding of the inputs, of the sum over D, and of the product that is handed out, which
        is |x|^2 + |y|^2 - limit. 1.01: the bound is used a little beside the limit, too.
        """
        norm, residual = other.norm.max(), other.residual.max()
        inputs = self.norm * residual + self.residual * norm + self.residual * residual
        total = self.x.shape[1] * 2.0**-24 * self.norm * norm
        unit = 2.0**-8 if self.dtype == torch.bfloat16 else 2.0**-24
        largest = self.square + other.square.max()
        product = torch.maximum(largest - limit.double(), limit.double() - self.square)
        bound: Tensor = 1.01 * (2 * (inputs + total) + unit * product + 2.0**-21 * largest)
        return bound


@ieee_fp32()
def _sides(a: Tensor, b: Tensor, screen: Screen) -> tuple[_Side, _Side]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features must be (N, D) and (M, D), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    origin, dtype = b.float().mean(0), _choose(screen, b)
    sides = _Side(a, origin, dtype), _Side(b, origin, dtype)
    if not all(side.square.isfinite().all() for side in sides):
        raise ValueError("features hold non-finite numbers: look at the images they are of")
    return sides


def _blocks(a: _Side, b: _Side, *, upper: bool) -> Iterator[tuple[int, int, Tensor]]:
    """(first row, first column, screened squared distances (R, C)); upper: of a triangle."""
    width = _columns(b.x)
    for row in range(0, len(a.x), BLOCK):
        rows = a.block(row, BLOCK) * -2  # exact
        square_a = a.square[row : row + BLOCK, None].float()
        for column in range(row if upper else 0, len(b.x), width):
            square_b = b.square[column : column + width].float()
            with ieee_fp32():  # the bound on the error is float32's
                screened = square_b + rows @ b.block(column, width).T
            yield row, column, screened.add_(square_a)


def _tiles(screened: Tensor) -> Tensor:
    """(R, C) -> (R, C / TILE, TILE); infinity fills the last tile."""
    missing = -screened.shape[1] % TILE
    if missing:
        screened = pad(screened, (0, missing), value=torch.inf)
    tiles: Tensor = screened.unflatten(1, (-1, TILE))
    return tiles


@ieee_fp32()
def _squared_distance(a: Tensor, b: Tensor, pairs: Pairs) -> Tensor:
    """|a_i - b_j|^2 of the pairs, from differences: relative error below 1e-6; (P,) float64."""
    i, j = pairs
    found = torch.empty(len(i), dtype=torch.float64, device=a.device)
    size = GPU_PAIRS if _on_gpu(a) else PAIRS
    for begin in range(0, len(i), size):  # small results kept in between would pin the memory
        some = slice(begin, begin + size)
        difference = a[i[some]] - b[j[some]]
        if _on_gpu(a):  # whose sums run in an order that no bound is known for
            difference = difference.double()
        found[some] = torch.linalg.vecdot(difference, difference)
    return found


class _Nearest:
    """The closest candidates of every row so far, by screened distance."""

    def __init__(self, rows: int, width: int, device: torch.device):
        self.screened = torch.full((rows, width), torch.inf, device=device)
        self.index = torch.zeros(rows, width, dtype=torch.int64, device=device)

    def look(self, screened: Tensor, row: int, column: int) -> None:
        """Take in a block. Its closest lie in the tiles with the smallest minima."""
        width = self.screened.shape[1]
        tiles = _tiles(screened)
        least = tiles.amin(2)  # (R, C / TILE)
        if _on_gpu(screened):
            rows = torch.arange(len(screened), device=screened.device)
        else:
            worst = self.screened[row : row + len(screened), -1]
            rows = (least.amin(1) < worst).nonzero().flatten()
        best = least[rows].topk(min(width, least.shape[1]), largest=False).indices
        close = tiles[rows[:, None], best].flatten(1)  # (rows, tiles * TILE)
        found, at = close.topk(min(width, close.shape[1]), largest=False)
        index = column + best.gather(1, at // TILE) * TILE + at % TILE
        rows = rows + row
        both = torch.cat([self.screened[rows], found], 1)
        self.screened[rows], keep = both.topk(width, largest=False)
        self.index[rows] = torch.cat([self.index[rows], index], 1).gather(1, keep)


def _settle(a: _Side, b: _Side, found: _Nearest, k: int) -> tuple[Neighbours, Tensor]:
    """Exact order of the candidates, and the rows (P,) that may have missed a neighbour."""
    limit = found.screened[:, k - 1].double()
    limit = limit + 2 * a.error(b, limit)
    candidate = found.screened.isfinite() & (found.screened <= limit[:, None])
    i, c = candidate.nonzero(as_tuple=True)
    exact = torch.full(candidate.shape, torch.inf, dtype=torch.float64, device=a.x.device)
    exact[i, c] = _squared_distance(a.x, b.x, (i, found.index[i, c]))
    exact, order = exact.topk(k, largest=False)
    last = found.screened[:, -1].double()
    beyond = torch.where(last.isinf(), last, last - a.error(b, last))  # of all left out
    missed = (exact[:, -1] > beyond).nonzero().flatten()
    return Neighbours(exact.sqrt(), found.index.gather(1, order)), missed


def nearest(
    queries: Tensor, points: Tensor | None = None, *, k: int, screen: Screen = None
) -> Neighbours:
    """The k points (M, D) nearest to each query (N, D).

    Without points: among the other queries; an image is not its own neighbour.
    """
    alone = points is None
    points = queries if points is None else points
    if not 1 <= k <= len(points) - alone:
        raise ValueError(f"k must be in 1..{len(points) - alone} for so many images, got {k}")
    a, b = _sides(queries, points, screen)
    found = _Nearest(len(queries), min(k + SPARE, len(points)), queries.device)
    square = _columns(points) == BLOCK
    for row, column, screened in _blocks(a, b, upper=alone and square):
        if alone:  # of all pairs in the block that are an image and itself
            screened.diagonal(row - column).fill_(torch.inf)
        found.look(screened, row, column)
        if alone and square and row != column:  # the mirror image below the diagonal
            found.look(screened.T, column, row)
    result, missed = _settle(a, b, found, k)
    if len(missed) and a.dtype != torch.float32:
        again = _search(queries[missed], points, missed if alone else None, k)
        result.distance[missed], result.index[missed] = again.distance, again.index
    return result


def _search(queries: Tensor, points: Tensor, own: Tensor | None, k: int) -> Neighbours:
    """The same in float32 for the rows that bfloat16 leaves open; query i is point own_i."""
    a, b = _sides(queries, points, torch.float32)
    found = _Nearest(len(queries), min(k + SPARE, len(points)), queries.device)
    for row, column, screened in _blocks(a, b, upper=False):
        if own is not None:
            at = own[row : row + BLOCK] - column
            here = ((at >= 0) & (at < screened.shape[1])).nonzero().flatten()
            screened[here, at[here]] = torch.inf
        found.look(screened, row, column)
    return _settle(a, b, found, k)[0]


class _Balls:
    """Balls of given radii (N,) around the images of one side, for another side's images."""

    def __init__(self, side: _Side, other: _Side, radius: Tensor):
        self.square = radius.double().square() * TIE
        error = side.error(other, self.square) + 2.0**-21 * self.square
        self.sure, self.perhaps = self.square - error, self.square + error

    def inside(self, screened: Tensor, first: int) -> tuple[Pairs, Tensor]:
        """Pairs (row, column) of a block that may lie inside, and whether that is sure."""
        sure = self.sure[first : first + len(screened)]
        perhaps = self.perhaps[first : first + len(screened)]
        tiles = _tiles(screened)
        i, tile = (tiles.amin(2) <= perhaps[:, None]).nonzero(as_tuple=True)
        close = tiles[i, tile]  # (P, TILE)
        at, column = (close <= perhaps[i, None]).nonzero(as_tuple=True)
        i, j = i[at], tile[at] * TILE + column
        return (i, j), close[at, column] <= sure[i]


def within(
    a: Tensor, b: Tensor, radius_a: Tensor, radius_b: Tensor, *, screen: Screen = None
) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs (i, j) with |a_i - b_j| <= radius_a_i, and those with <= radius_b_j, by block.

    a (N, D), b (M, D), radii (N,) and (M,). The blocks together hold every pair once.
    """
    side_a, side_b = _sides(a, b, screen)
    balls_a, balls_b = _Balls(side_a, side_b, radius_a), _Balls(side_b, side_a, radius_b)
    for row, column, screened in _blocks(side_a, side_b, upper=False):
        (i, j), sure = balls_a.inside(screened, row)
        in_a = i + row, j + column
        kept_a = _decide(a, b, in_a, sure, balls_a.square[in_a[0]])
        (j, i), sure = balls_b.inside(screened.T, column)
        in_b = i + row, j + column
        yield kept_a, _decide(a, b, in_b, sure, balls_b.square[in_b[1]])


def _decide(a: Tensor, b: Tensor, pairs: Pairs, sure: Tensor, square: Tensor) -> Pairs:
    """The pairs that are surely within the squared radius (P,) or exactly so."""
    keep, unsure = sure.clone(), (~sure).nonzero().flatten()
    i, j = pairs
    keep[unsure] = _squared_distance(a, b, (i[unsure], j[unsure])) <= square[unsure]
    return i[keep], j[keep]
