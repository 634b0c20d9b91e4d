"""A finished set as files: class folders of PNG, an array, a picture.

Chunk after chunk: never all images in memory.
Shapes: n = images of a chunk, N = images of the set, (C, H, W) an image, K = classes.
"""

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbdm_scale.data.class_names import class_folders
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.generation.plan import Chunk
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.sampling.grid import GRID_COLUMNS, grid_order, grid_png
from cbdm_scale.storage.folder import Storage


@contextmanager
def staging(folder: Storage, name: str) -> Iterator[Path]:
    """A local path for a file or a folder that gets its place and name when all is written.

    On a store a folder is uploaded file by file, its dataset.json last.
    """
    if folder.is_local:
        draft = f".{name}.partial.tmp"
        folder.remove(draft)  # of a run that was killed
        folder.make_folder()
        try:
            with folder.naming_the_disk():
                yield folder.local_path(draft)
        except BaseException:
            folder.remove(draft)
            raise
        folder.remove(name)
        folder.move(draft, name)
        return
    with tempfile.TemporaryDirectory(prefix="cbdm-samples-") as scratch:
        draft_path = Path(scratch, name)
        yield draft_path
        if draft_path.is_file():
            folder.put_file(name, draft_path)
            return
        files = [f for f in draft_path.rglob("*") if f.is_file()]
        for file in sorted(files, key=lambda f: (f.name == "dataset.json", str(f))):
            folder.put_file(f"{name}/{file.relative_to(draft_path).as_posix()}", file)


def write_png(
    store: ChunkStore, chunks: Sequence[Chunk], target: Path, class_names: Sequence[str]
) -> None:
    """target/<class>/<number in the set>.png; class_names (K,), () where they are not known."""
    from PIL import Image

    folders = class_folders(store.plan.num_classes, class_names)
    for c in store.plan.classes:
        (target / folders[c]).mkdir(parents=True)
    for (first, _), (images, labels) in zip(chunks, store.read_all(chunks), strict=True):
        for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            pixels = image.transpose(1, 2, 0)  # (H, W, C)
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            picture.save(target / folders[label] / f"{first + i:06d}.png")


def write_npz(store: ChunkStore, chunks: Sequence[Chunk], target: Path) -> None:
    """The layout of ADM (guided-diffusion): arr_0 (N, H, W, C) uint8, arr_1 (N,) int64."""
    num_images = chunks[-1][1]
    pixels = (images.transpose(0, 2, 3, 1) for images, _ in store.read_all(chunks))
    labels = store.plan.labels_of(torch.arange(num_images)).numpy()
    write_arrays(target, pixels, labels, store.plan.shape, store.plan.class_names)


def write_arrays(
    target: Path,
    images: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64],
    shape: tuple[int, int, int],
    class_names: Sequence[str] = (),
) -> None:
    """The layout of ADM of images that come in parts (n, H, W, C), of shape (C, H, W) each.

    ``class_names`` (K,), where they are known, are one array more, of text.
    """
    channels, height, width = shape
    num_images = len(labels)
    header = np.lib.format.write_array_header_1_0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_member("arr_0.npy"), "w", force_zip64=True) as file:
            whole = num_images, height, width, channels
            header(file, {"descr": "|u1", "fortran_order": False, "shape": whole})
            for part in images:
                file.write(part.tobytes())
        with archive.open(_member("arr_1.npy"), "w", force_zip64=True) as file:
            header(file, {"descr": "<i8", "fortran_order": False, "shape": (num_images,)})
            file.write(labels.tobytes())
        if class_names:
            with archive.open(_member("class_names.npy"), "w") as file:
                np.lib.format.write_array(file, np.array(class_names), allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    """Without the time of writing: the same set, the same bytes."""
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


# ----------------------------------------------------------------------------
# The picture.


def grid(store: ChunkStore, chunks: Sequence[Chunk], real: Manifest | None) -> bytes:
    """A PNG of ten images a class, rows by training count; by number where ``real`` is None."""
    plan, counts = store.plan, real.counts["train"] if real else None
    names = real.class_names if real else [f"class {c}" for c in range(plan.num_classes)]
    weights = counts or [0] * plan.num_classes
    order = [plan.classes[i] for i in grid_order([weights[c] for c in plan.classes])]
    kept: dict[int, list[NDArray[np.uint8]]] = {c: [] for c in order}
    for images, labels in store.read_all(chunks):
        for image, label in zip(images, labels.tolist(), strict=True):
            if label in kept and len(kept[label]) < GRID_COLUMNS:
                kept[label].append(image.copy())
        if all(len(row) == GRID_COLUMNS for row in kept.values()):
            break
    pixels = torch.from_numpy(np.stack([image for row in kept.values() for image in row]))
    y = torch.tensor([label for label, row in kept.items() for _ in row])
    return grid_png(pixels, y, order, names, counts)
