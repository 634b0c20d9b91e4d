"""The same images through four loaders: float32 batches (n, 3, S, S) in [-1, 1], with labels.

Each function gives batches for ever, shuffled, half of the images mirrored. Ours comes twice:
as the first epoch finds it (nothing decoded yet) and as later epochs do.
"""

import io
import random
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbdm_scale.data.augment import Augmentation
from cbdm_scale.data.cache import GB, CacheFolder
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import PlannedImages, load_batches
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.shards import ShardReader
from data_prep.readers.synthetic import paint
from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset

NAME, NUM_CLASSES, NUM_IMAGES, BATCH, SHARD = "bench", 10, 4096, 64, 1024
Batches = Iterator[tuple[Tensor, Tensor]]


def photos(folder: str, size: int) -> Iterator[np.ndarray]:
    """Square crops of real photos that are at least this large, (S, S, 3) uint8."""
    from PIL import Image

    files, draw = sorted(Path(folder).rglob("*.JPEG")), random.Random(0)
    for i in count():
        with Image.open(files[i % len(files)]) as image:
            side = min(image.size)
            if side < size:
                continue
            side = draw.randint(size, side)
            left, top = (draw.randint(0, length - side) for length in image.size)
            box = left, top, left + side, top + side
            whole = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS, box)
            yield np.asarray(whole)


def write_data(folder: Path, size: int, photo_folder: str = "") -> None:
    """Shards below folder/shards and the very same PNG files below folder/files/<class>/.

    photo_folder: photos to cut the images from; procedural images without.
    """
    from PIL import Image

    labels = np.arange(NUM_IMAGES) % NUM_CLASSES
    if photo_folder:
        pixels = np.stack(list(islice(photos(photo_folder, size), NUM_IMAGES)))
    else:
        pixels = np.stack([paint(0, y, i, size) for i, y in enumerate(labels.tolist())])
    made = Source(
        name=NAME,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        image_size=size,
        channels=3,
        splits={"train": Split.of_arrays(pixels, labels, "i")},
        made="a benchmark",
        mirrors=True,
    )
    out = folder / "shards" / NAME
    write_dataset(made, out, samples_per_shard=SHARD, seed=0, log=lambda line: None)
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / "files" / str(label) / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def ours(folder: Path, processes: int, *, cached: bool) -> Batches:
    """Later epochs, or (not ``cached``) the first: every image is decoded as it comes."""
    root, cache = str(folder / "shards"), CacheFolder(folder / "cache", 8 * GB)
    cache.make()
    index = open_index(root, NAME, "train")
    reader = ShardReader(root, NAME, index, cache=cache if cached else None)
    if cached:
        for start in range(0, NUM_IMAGES, BATCH):
            reader.load_batch(np.arange(start, start + BATCH))
    plan = SamplePlan(index.shard_sizes.tolist(), 0)
    images = PlannedImages(reader, plan, Augmentation(flip=True))
    config = DataConfig(num_workers=processes)
    where = {"start": 0, "batch_size": BATCH, "rank": 0, "world_size": 1}
    for batch in load_batches(images, config, **where):
        yield batch.x0, batch.y


def _to_floats(pixels: Any) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) in [-1, 1], mirrored for one in two."""
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div_(127.5).sub_(1)
    return x.flip(-1) if random.random() < 0.5 else x


def _pillow(data: bytes) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return _to_floats(image)


def plain_webdataset(folder: Path, processes: int) -> Batches:
    """As WebDataset's own examples have it: tars, shuffle of 1,000, Pillow, batched."""
    import webdataset as wds

    tars = sorted(str(tar) for tar in (folder / "shards" / NAME / "train").glob("*.tar"))
    data = (
        wds.WebDataset(tars, shardshuffle=len(tars), resampled=False, empty_check=False)
        .shuffle(1000)
        .to_tuple("png", "cls")
        .map_tuple(_pillow, int)
        .batched(BATCH, partial=False)
        .repeat()
    )
    loader = wds.WebLoader(data, batch_size=None, num_workers=processes)
    for x, y in loader:
        yield x, torch.as_tensor(y)


def image_folder(folder: Path, processes: int) -> Batches:
    """torchvision's ImageFolder and transforms under a DataLoader that shuffles."""
    from torchvision import datasets, transforms

    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    data = datasets.ImageFolder(str(folder / "files"), transforms.Compose(steps))
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        data,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=processes,
        persistent_workers=processes > 0,
    )
    while True:
        yield from loader


def _ray_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"x": _to_floats(row["png"]).numpy(), "y": int(row["cls"])}


def ray_data(folder: Path, processes: int) -> Batches:
    """Ray Data's read_webdataset (which decodes with Pillow), on as many logical CPUs."""
    import ray

    tars = sorted(str(tar) for tar in (folder / "shards" / NAME / "train").glob("*.tar"))
    ray.init(
        address="local",
        num_cpus=max(1, processes),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=500_000_000,
        _node_ip_address="127.0.0.1",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.read_webdataset(tars * 200, shuffle="files").map(_ray_row)
    for batch in data.iter_torch_batches(batch_size=BATCH, local_shuffle_buffer_size=1000):
        yield batch["x"], batch["y"]


LOADERS = {
    "ours, first epoch": partial(ours, cached=False),
    "ours, later epochs": partial(ours, cached=True),
    "WebDataset": plain_webdataset,
    "ImageFolder": image_folder,
    "Ray Data": ray_data,
}
