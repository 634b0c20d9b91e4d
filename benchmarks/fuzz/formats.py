"""What is read: kinds of files, and the project's own reader of each."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.fuzz.examples import EXAMPLES, NAME, QUIET
from cbdm_scale.config.run_options import parse_run
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import BadSample, ShardReader
from cbdm_scale.metrics.classifier import load_classifier
from cbdm_scale.metrics.inception import find_inception
from cbdm_scale.metrics.sources import open_images
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.storage.folder import Storage
from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.readers.pickles import load_batch
from tune.trials import TrialStore

Files = dict[str, bytes]


def as_it_is(files: Files) -> Files:
    return files


@dataclass(frozen=True)
class Format:
    says: str
    """Row of the table."""
    read: Callable[[Path], object]
    seal: Callable[[Files], Files] = as_it_is
    """Make checksums right again, as somebody with intent would."""


def read_shards(folder: Path) -> None:
    manifest = read_manifest(str(folder), NAME)
    for split in manifest.counts:
        index = open_index(str(folder), NAME, split)
        reader = ShardReader(str(folder), NAME, index)
        for i in range(min(index.num_samples, 40)):
            with suppress(BadSample):  # training puts another image in its place
                reader.load(i)


def seal_shards(files: Files) -> Files:
    """dataset.json names the hash of shards.parquet."""
    out, name = dict(files), f"{NAME}/dataset.json"
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        about = json.loads(out[name])
        about["shards_sha256"] = hashlib.sha256(out[f"{NAME}/shards.parquet"]).hexdigest()
        out[name] = json.dumps(about).encode()
    return out


def read_network(folder: Path, run: str = "") -> None:
    """As export does: the file, the network, its weights in it."""
    load_pretrained(str(folder / run)).build()


def seal_checkpoint(files: Files) -> Files:
    """state.json names size and hash of every file."""
    out = dict(files)
    for name in [n for n in out if n.endswith("/state.json")]:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            about = json.loads(out[name])
            for file in about["files"]:
                data = out[f"{name.rpartition('/')[0]}/{file}"]
                hashed = hashlib.sha256(data).hexdigest()
                about["files"][file] = {"bytes": len(data), "sha256": hashed}
            out[name] = json.dumps(about).encode()
    return out


def read_samples(folder: Path) -> None:
    images = open_images(str(folder / "images.npz"))
    if images.count:
        images.read([0, images.count - 1])
    assert images.labels is not None


def read_preset(folder: Path) -> None:
    parse_run({"config": str(folder / "winner.json")})


def prepared(kind: str, source: str, folder: Path) -> None:
    where = str(folder / source) + ("/{000000..000001}.tar" if kind == "webdataset" else "")
    options = Options(
        out=str(folder / "out"), source=where, name=NAME, resolution=8, classifier=False,
        workers=0, allow_missing=100, label_from="cls" if kind == "webdataset" else None,
    )  # fmt: skip
    prepare(kind, options, log=QUIET)


def read_classifier(folder: Path) -> None:
    net = load_classifier(folder / "net.safetensors")
    with torch.no_grad():
        net(torch.zeros(1, 1, 8, 8))


FORMATS: dict[str, Format] = {
    "shards": Format("shards, index, dataset.json", read_shards, seal_shards),
    "checkpoint": Format("run folder with a checkpoint", read_network, seal_checkpoint),
    "exported": Format("exported folder", read_network),
    "diffusers": Format("folder of diffusers", lambda f: read_network(f, "unet")),
    "served": Format("registered model", lambda f: generate_from_checkpoint(str(f), [0])),
    "paper": Format("checkpoint of the paper's code", lambda f: read_network(f, "ckpt.pt")),
    "network": Format(
        "weights of an extractor",
        lambda f: find_inception(str(f / "weights.pth"), True).load(torch.device("cpu")),
    ),
    "classifier": Format("classifier", read_classifier),
    "samples": Format(".npz of images", read_samples),
    "pictures": Format("images for data_prep", lambda f: prepared("folder", "images", f)),
    "tars": Format("foreign tars for data_prep", lambda f: prepared("webdataset", "tars", f)),
    "pickled": Format(
        "CIFAR's pickles", lambda f: load_batch((f / "data_batch_1").read_bytes())
    ),
    "preset": Format("preset file", read_preset),
    "search": Format("records of a search", lambda f: TrialStore(Storage(str(f)))),
}


def example(name: str, folder: Path) -> Files:
    """The files of a valid example by their paths in a folder."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    EXAMPLES[name](home)
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in sorted(home.rglob("*"))
        if file.is_file() and not file.name.endswith(".lock")
    }
