"""Features of a set of images: extracted once, on any number of workers, kept by content.

Images are read once, a chunk at a time, and never held; features go to a file that is mapped
into memory. The chunks do not depend on the workers, so one worker and a hundred give the same
bits, on CPUs and on GPUs of one kind. What is there is not computed again, and an extraction
that was interrupted goes on. A folder is named after everything that decides its content:

    <folder>/<key>/about.json      what it is
    <folder>/<key>/pool.npy        (N, D) float32
    <folder>/<key>/labels.npy      (N,) int64, -1 for none
    <folder>/<key>/logits.npy      (N, K) float32, of a classifier
    <folder>/<key>/hashes.npy      (N,) int64, equal for equal pixels
    <folder>/<key>/imagenet.npy    (N, 1008) float32, of an Inception with classes

Shapes: N = images, n = images of a chunk, D = features, K = classes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.data.index import one_at_a_time
from cbdm_scale.devices import needs_memory
from cbdm_scale.metrics.features import Features, Recipe
from cbdm_scale.metrics.sources import Images
from cbdm_scale.storage.disk import naming_the_disk

FORMAT = 2
CHUNK_SIZE = 64
"""Images a job, and a forward pass; the latter on CPUs, whatever the job."""
GPU_BATCH, GPU_CHUNK_SIZE = 256, 1024
"""Images a forward pass and a job on GPUs, which compute while the next images are read."""

Chunk = tuple[int, int]
"""Numbers of its first image and of the one after its last."""

Piece = dict[str, NDArray[Any]]
"""pool (n, D), hashes (n,), and logits or imagenet where the extractor gives them."""

Work = Callable[[torch.device], Callable[[Chunk], Piece]]
RunJobs = Callable[[Work, Sequence[Chunk]], Iterator[tuple[Chunk, Piece]]]
"""Does every job somewhere and gives (job, result) in any order; set up once a worker."""


@dataclass(frozen=True)
class Extraction:
    """The work of a worker: load the extractor, then turn chunks of images into features."""

    images: Images
    recipe: Recipe

    def __call__(self, device: torch.device) -> Callable[[Chunk], Piece]:
        extractor = self.recipe.load(device)
        size = CHUNK_SIZE if device.type == "cpu" else GPU_BATCH

        def work(chunk: Chunk) -> Piece:
            found: list[Features] = []
            hashes = []
            with needs_memory(f"features of {size} images at once", "Try --cluster.device cpu"):
                for begin in range(*chunk, size):
                    images = self.images.read(range(begin, min(begin + size, chunk[1])))
                    found.append(extractor(_sent(images, device)))
                    hashes.append(_pixel_hashes(images))
            piece = {"hashes": np.concatenate(hashes)}
            for name in ("pool", "logits", "imagenet"):
                parts = [part for part in (getattr(f, name) for f in found) if part is not None]
                if parts:
                    piece[name] = torch.cat(parts).cpu().float().numpy()  # here alone it waits
            return piece

        return work


def _sent(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images (n, C, H, W) on the way to a device, for which nobody waits."""
    x = torch.from_numpy(images)
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def _pixel_hashes(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """64 bits of BLAKE2 of every image (n, C, H, W): (n,)."""
    digests = [hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in images]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def run_here(work: Work, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Piece]]:
    """One chunk after the other in this process, on its CPU."""
    do = work(torch.device("cpu"))
    for chunk in chunks:
        yield chunk, do(chunk)


@dataclass(frozen=True)
class FeatureSet:
    """Features of N images; ``extract`` gives them mapped into memory."""

    pool: Tensor
    """(N, D) float32"""
    labels: Tensor
    """(N,) int64, -1 for none"""
    hashes: Tensor
    """(N,) int64, equal for equal pixels"""
    logits: Tensor | None = None
    """(N, K) scores of the data set's classes"""
    imagenet: Tensor | None = None
    """(N, 1008) scores for the Inception Score"""

    def at(self, rows: Tensor) -> "FeatureSet":
        """Those of some images: numbers (n,), or (N,) bool."""
        kept = {name: part[rows] for name, part in vars(self).items() if part is not None}
        return FeatureSet(**kept)


def feature_key(images: Images, recipe: Recipe) -> str:
    """Sixteen hex digits of data, selection, number, extractor, weights and resize rule."""
    parts = [FORMAT, images.fingerprint, images.count, recipe.fingerprint]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def extract(
    images: Images,
    recipe: Recipe,
    folder: str | Path,
    run: RunJobs = run_here,
    *,
    chunk_size: int | None = None,
    on_gpus: Callable[[], bool] = lambda: False,
    reached: Callable[[int, int], None] = lambda done, kept: None,
) -> FeatureSet:
    """Features of all images, from the cache in ``folder`` or computed into it.

    ``run`` does the work: here, or on the workers of a cluster. ``chunk_size``: images of
    a job; None: CHUNK_SIZE, or GPU_CHUNK_SIZE where ``on_gpus``, asked only if there is
    something to compute, says that the workers have GPUs. ``reached`` is called with the
    number of images that are done, and of those that were done before.
    """
    key = feature_key(images, recipe)
    home = Path(folder).expanduser() / key
    if not _is_whole(home):
        with naming_the_disk(str(home.parent), "--features"):
            home.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(home):
            if not _is_whole(home):
                shutil.rmtree(home, ignore_errors=True)
                size = chunk_size or (GPU_CHUNK_SIZE if on_gpus() else CHUNK_SIZE)
                _compute(images, recipe, home, run, size, reached)
    # Copy on write: torch wants memory that it may write to.
    mapped = {f.stem: np.load(f, mmap_mode="c") for f in home.glob("*.npy")}
    return FeatureSet(**{name: torch.from_numpy(part) for name, part in mapped.items()})


def _is_whole(home: Path) -> bool:
    """about.json is there and every file has the size that it names."""
    try:
        about = json.loads((home / "about.json").read_text())
        sizes = about["bytes"].items()
        return all((home / file).stat().st_size == size for file, size in sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _compute(
    images: Images,
    recipe: Recipe,
    home: Path,
    run: RunJobs,
    chunk_size: int,
    reached: Callable[[int, int], None],
) -> None:
    draft = home.with_name(f".{home.name}.partial-{chunk_size}")
    writes = partial(naming_the_disk, str(home.parent), "--features")
    with writes():
        draft.mkdir(exist_ok=True)
    total = images.count
    chunks = [(i, min(i + chunk_size, total)) for i in range(0, total, chunk_size)]
    done = draft / "done"
    # Whole lines: of the last one a full disk may have taken a part.
    kept = set(done.read_text().rpartition("\n")[0].split()) if done.exists() else set()
    todo = [chunk for chunk in chunks if str(chunk[0]) not in kept]
    count = before = total - sum(stop - start for start, stop in todo)
    for (start, stop), piece in run(Extraction(images, recipe), todo) if todo else ():
        with writes():
            for name, part in piece.items():
                _store(draft / f"{name}.npy", total, start, part)
            with open(done, "a") as log:  # after its features: none is counted for nothing
                log.write(f"{start}\n")
        count += stop - start
        reached(count, before)
    with writes():
        np.save(draft / "labels.npy", images.labels)
        about: dict[str, Any] = {
            "images": images.fingerprint,
            "count": total,
            "extractor": recipe.fingerprint,
            "bytes": {f.name: f.stat().st_size for f in sorted(draft.glob("*.npy"))},
        }
        (draft / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        done.unlink(missing_ok=True)
        os.replace(draft, home)


def _store(path: Path, total: int, start: int, part: NDArray[Any]) -> None:
    """Rows from ``start`` on of an .npy of so many rows, which appears with its first ones.

    Written and not mapped: where a mapped file meets a full disk, the process is killed.
    """
    about = {
        "descr": np.lib.format.dtype_to_descr(part.dtype),
        "fortran_order": False,
        "shape": (total, *part.shape[1:]),
    }
    with open(path, "r+b" if path.exists() else "wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        file.seek(start * part[0].nbytes, os.SEEK_CUR)
        file.write(part.tobytes())
