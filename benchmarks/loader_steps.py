"""Where the loader's time goes: CPU microseconds an image of each step, one thread.

    python -m benchmarks.loader_steps [--photos DIR] [--size 64] [--images 1024]

Each step is timed by itself over all images, all steps in turn; the best turn of
each, so less than a busy machine's mean in ``benchmarks.data``. The rows "all of a batch" are
the loader's own call.
"""

import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.loaders import BATCH, NAME, write_data
from benchmarks.timing import Bench, arguments, markdown
from cbdm_scale.data.augment import Augmentation
from cbdm_scale.data.cache import GB, CacheFolder
from cbdm_scale.data.images import decode
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import PlannedImages
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.shards import ShardReader


def pillow(data: bytes) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        np.asarray(image.convert("RGB"))


def each(work: Callable[[Any], Any], items: Iterable[Any]) -> Callable[[], None]:
    """The work on every item, when called."""
    kept = list(items)

    def run() -> None:
        for item in kept:
            work(item)

    return run


def steps(folder: Path, num_images: int) -> dict[str, Callable[[], None]]:
    """Name -> work on all images."""
    root, flip = str(folder / "shards"), Augmentation(flip=True)
    index = open_index(root, NAME, "train")
    cache = CacheFolder(folder / "cache", 8 * GB)
    cache.make()
    reader, cached = ShardReader(root, NAME, index), ShardReader(root, NAME, index, cache=cache)
    cached.load_batch(np.arange(index.num_samples))
    plan = SamplePlan(index.shard_sizes.tolist(), 0)
    size = (reader.channels, reader.image_size)
    files = [reader.read(row) for row in range(num_images)]
    batches = torch.arange(num_images).split(BATCH)
    rows = [plan.rows(batch.numpy()) for batch in batches]
    pixels = [cached.load_batch(some)[0] for some in rows]

    def mirror() -> None:
        for batch, some in zip(batches, pixels, strict=True):
            chosen = flip.mirrored(batch).numpy()
            some[chosen] = some[chosen, ..., ::-1]

    def floats() -> None:
        for some in pixels:
            torch.from_numpy(some).float().div_(127.5).sub_(1)

    first, later = (PlannedImages(r, plan, flip) for r in (reader, cached))
    return {
        "PNG to pixels, libspng": each(lambda data: decode(data, *size), files),
        "(the same by Pillow)": each(pillow, files),
        "bytes by their range, with crc32": each(reader.read, np.concatenate(rows).tolist()),
        "pixels from the cache, with crc32": each(cached.load_batch, rows),
        "to float and scaled": floats,
        "mirror": mirror,
        "plan and keys": each(lambda b: index.keys(plan.rows(b.numpy())), batches),
        "all of a batch, first epoch": each(first.__getitem__, batches),
        "all of a batch, later epochs": each(later.__getitem__, batches),
    }


def main() -> None:
    args = arguments(__doc__, repetitions=5, photos="", size=64, images=1024)
    torch.set_num_threads(1)
    bench = Bench(args, size=args.size, images=args.images)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), args.size, args.photos)
        samples = bench.compare(steps(Path(folder), args.images))
    rows = [(n, f"{min(s.cpu) / args.images * 1e6:.1f}") for n, s in samples.items()]
    bench.finish(markdown(("step", "CPU us an image"), rows))


if __name__ == "__main__":
    main()
