"""Pictures of samples, one row a class, the most frequent class on top, with its name.

Shapes: n = images, C = channels (1 or 3), H = height, W = width.
"""

import io
import math
import unicodedata
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 1  # white pixels around every image, before scaling


def class_grid(
    images: Tensor, labels: Tensor, order: Sequence[int], columns: int = 10, scale: int = 1
) -> Image.Image:
    """The first ``columns`` images of every class in ``order``; white where there are fewer.

    images (n, C, H, W) uint8; labels (n,); every pixel becomes scale x scale pixels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be (n, 1 or 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}"
        )
    assert order and columns >= 1 and scale >= 1, "at least one class, column and pixel"
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    y, channels = labels.cpu(), images.shape[1]
    cells = torch.full((len(order), columns, *images.shape[1:]), 255, dtype=torch.uint8)
    for row, label in zip(cells, order, strict=True):
        first = images.cpu()[y == label][:columns]
        row[: len(first)] = first
    grid = make_grid(cells.flatten(0, 1), nrow=columns, padding=GAP, pad_value=255)
    if len(order) * columns == 1:  # which make_grid gives back as it is
        grid = F.pad(grid, (GAP, GAP, GAP, GAP), value=255)
    picture: Image.Image = to_pil_image(grid[:channels])  # grey comes out with 3 channels
    size = picture.width * scale, picture.height * scale
    return picture.resize(size, Image.Resampling.NEAREST)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


TEXT_SIZE = 12
"""Pixels."""
LONGEST_NAME = 30
"""Letters of a class name before a row."""
GRID_ROWS = 30
GRID_COLUMNS = 10


def grid_order(counts: Sequence[int]) -> list[int]:
    """Classes from the most frequent to the rarest, thinned to at most 30 rows."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    if len(order) <= GRID_ROWS:
        return order
    return [order[round(i * (len(order) - 1) / (GRID_ROWS - 1))] for i in range(GRID_ROWS)]


def grid_png(
    images: Tensor,
    labels: Tensor,
    order: Sequence[int],
    names: Sequence[str],
    counts: Sequence[int] | None,
) -> bytes:
    """The picture of a sample grid: a row a class of ``order``, its name before it.

    images (n, C, H, W) uint8, labels (n,); names and training images (None: not known) of all
    K classes. Where ``order`` leaves classes out, a line above says so.
    """
    scale = max(1, 32 // images.shape[-1])
    grid = class_grid(images, labels, order, columns=GRID_COLUMNS, scale=scale)
    words = [_row_words(names[c], c, counts[c] if counts else None) for c in order]
    some = f"{len(order)} of {len(names)} classes" if len(order) < len(names) else ""
    return png_bytes(with_words(grid, words, some))


def _row_words(name: str, label: int, count: int | None) -> str:
    """A class as Pillow's font can say it: without accents, or by its number."""
    decomposed = unicodedata.normalize("NFKD", name)
    letters = [c for c in decomposed if not unicodedata.combining(c)]
    said = all(c.isascii() and c.isprintable() for c in letters) and bool(letters)
    plain = "".join(letters) if said else f"class {label}"
    if len(plain) > LONGEST_NAME:
        plain = f"{plain[: LONGEST_NAME - 1]}…"
    return plain if count is None else f"{plain} ({count:,})"


def with_words(picture: Image.Image, rows: Sequence[str], above: str = "") -> Image.Image:
    """A grid with a text before each of its equally high rows, and a line above them all."""
    font = ImageFont.load_default(TEXT_SIZE)
    widths = [math.ceil(font.getlength(words)) for words in rows]
    left, top = max(widths) + TEXT_SIZE, 2 * TEXT_SIZE if above else 0
    width = max(left + picture.width, math.ceil(font.getlength(above)) + TEXT_SIZE)
    whole = Image.new(picture.mode, (width, top + picture.height), "white")
    whole.paste(picture, (left, top))
    draw = ImageDraw.Draw(whole)
    draw.text((left, top / 2), above, "black", font, anchor="lm")
    for row, words in enumerate(rows):
        middle = top + (row + 0.5) * picture.height / len(rows)
        draw.text((left - TEXT_SIZE / 2, middle), words, "black", font, anchor="rm")
    return whole
