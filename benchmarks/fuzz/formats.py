"""What is read: of each kind of file a valid example, as small as can be, and its reader."""

import hashlib
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.preset_file import PresetFile, preset_text
from cbdm_scale.config.presets import preset
from cbdm_scale.config.run_options import parse_run
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import BadSample, ShardReader
from cbdm_scale.export import export
from cbdm_scale.metrics.classifier import SmallClassifier, load_classifier, save_classifier
from cbdm_scale.metrics.inception import find_inception
from cbdm_scale.metrics.sources import open_images
from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import sinusoid
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.paper_checkpoint import paper_names
from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import build_state
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.checkpoint import save_checkpoint
from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.readers.pickles import load_batch
from tune.trials import Rung, Trial, TrialStore

Files = dict[str, bytes]
NAME = "shapes"
MODEL = UNetConfig(channels=8, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=4)
FOREIGN = UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)
TABLE = "time_embedding.timembedding.0.weight"
QUIET = partial(lambda *words: None)


@dataclass(frozen=True)
class Format:
    says: str
    """Row of the table."""
    make: Callable[[Path], None]
    """Puts an example into a folder."""
    read: Callable[[Path], object]
    """The project's own reader of it."""
    seal: Callable[[Files], Files] = dict
    """Make checksums right again, as somebody with intent would."""


# ----------------------------------------------------------------------------
# Examples.


def shards(folder: Path) -> None:
    options = Options(
        out=str(folder), name=NAME, classes=3, counts="6", eval_per_class=2, resolution=8,
        classifier=False, samples_per_shard=6, workers=0,
    )  # fmt: skip
    prepare("synthetic", options, log=QUIET)


def run(folder: Path) -> Path:
    """A run folder with a checkpoint, somewhere below the folder."""
    shards(folder / "data")
    options = {
        "name": "run",
        "dataset": NAME,
        "data.root": str(folder / "data"),
        "sample.num_steps": 2,
        "cluster.storage": str(folder / "runs"),
    }
    config = replace(with_options(preset("digits_lt", "tcfg"), options), model=MODEL)
    manifest = read_manifest(config.data.root, NAME)
    opened = open_run_dir(config, manifest)
    state = build_state(config, manifest, torch.device("cpu"))
    state.progress.num_seen = 48
    save_checkpoint(opened, state, {})
    return folder / "runs" / "run"


def checkpoint(folder: Path) -> None:
    with TemporaryDirectory() as made:
        shutil.copytree(run(Path(made)), folder, dirs_exist_ok=True)


def exported(folder: Path) -> None:
    with TemporaryDirectory() as made:
        export(load_pretrained(str(run(Path(made)))), None, None, folder)


def diffusers(folder: Path) -> None:
    with TemporaryDirectory() as whole:
        exported(Path(whole))
        shutil.copytree(Path(whole) / "diffusers", folder, dirs_exist_ok=True)


def served(folder: Path) -> None:
    """What a registered model holds."""
    with TemporaryDirectory() as made:
        found = run(Path(made))
        shutil.copy(found / RunDir.CONFIG, folder)
        shutil.copy(found / "checkpoints" / f"{48:012d}" / "ema.safetensors", folder)


def paper(folder: Path) -> None:
    """A checkpoint in the format of the paper's code."""
    spec = NetworkSpec(model=FOREIGN, channels=1, image_size=8, num_classes=3, num_steps=20)
    net = build(spec)
    state, weights = net.state_dict(), {TABLE: sinusoid(torch.arange(20), FOREIGN.channels)}
    for ours, theirs in paper_names(FOREIGN, list(state)).items():
        tensor = state[ours][:3] if ours == "label.weight" else state[ours]
        for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            weights[name] = part.clone()
    content = {"net_model": weights, "ema_model": weights, "step": 3}
    torch.save({**content, "fixed_x_T": torch.zeros(4, 1, 8, 8)}, folder / "ckpt.pt")


def network_file(folder: Path) -> None:
    """A state dict such as Inception's, too small to be it."""
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(2, 3, 3, 3)}, folder / "weights.pth")


def classifier(folder: Path) -> None:
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=3)
    (folder / "net.safetensors").write_bytes(save_classifier(net))


def samples(folder: Path) -> None:
    pixels = np.arange(6 * 8 * 8 * 3, dtype=np.uint32).reshape(6, 8, 8, 3).astype(np.uint8)
    np.savez(folder / "images.npz", pixels, np.arange(6) % 3)


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def pictures(folder: Path) -> None:
    """A folder a class, PNG and JPEG."""
    for c in range(2):
        home = folder / "images" / f"class{c}"
        home.mkdir(parents=True)
        for i in range(3):
            pixels = np.full((9, 12, 3), 40 * c + i, np.uint8)
            kind = "PNG" if i else "JPEG"
            (home / f"{i}.{'png' if i else 'jpg'}").write_bytes(png(pixels, kind))


def tars(folder: Path) -> None:
    """WebDataset shards from elsewhere."""
    (folder / "tars").mkdir()
    for shard in range(2):
        with tarfile.open(folder / "tars" / f"{shard:06d}.tar", "w") as out:
            for i in range(4):
                pixels = np.full((8, 8, 3), 10 * i, np.uint8)
                for ending, data in (("png", png(pixels)), ("cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{shard}{i}.{ending}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))


def pickled(folder: Path) -> None:
    """A batch as CIFAR's authors publish it."""
    batch = {b"data": np.zeros((2, 12), np.uint8), b"labels": [0, 1], b"batch_label": b"x"}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))


def preset_file(folder: Path) -> None:
    made = PresetFile(
        dataset="digits_lt",
        preset="cbdm",
        options={"loss.tau": 0.5, "eval.guidance": [0.0, 1.0], "train.lr": 1e-3},
        about="an example",
    )
    (folder / "winner.json").write_text(preset_text(made))


def search(folder: Path) -> None:
    """What a search of tune/ remembers."""
    scores = {"1.0": {"fid": 3.0, "fid_few": 9.0}}
    trial = Trial(
        id="t000",
        kind="control",
        params={"loss.tau": 0.0},
        seed=0,
        status="finished",
        rungs=(Rung(480, scores, 1.0, 2.0),),
    )
    TrialStore(Storage(str(folder))).put(trial)


# ----------------------------------------------------------------------------
# Readers.


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


def read_pictures(folder: Path) -> None:
    prepared("folder", folder / "images", folder)


def read_tars(folder: Path) -> None:
    where = folder / "tars" / "{000000..000001}.tar"
    prepared("webdataset", where, folder, label_from="cls")


def prepared(kind: str, source: Path, folder: Path, label_from: str | None = None) -> None:
    options = Options(
        out=str(folder / "out"), source=str(source), name=NAME, resolution=8, workers=0,
        classifier=False, allow_missing=100, label_from=label_from,
    )  # fmt: skip
    prepare(kind, options, log=QUIET)


def read_served(folder: Path) -> None:
    generate_from_checkpoint(str(folder), [0])


def read_inception(folder: Path) -> None:
    find_inception(str(folder / "weights.pth"), True).load(torch.device("cpu"))


def read_pickled(folder: Path) -> None:
    load_batch((folder / "data_batch_1").read_bytes())


def read_classifier(folder: Path) -> None:
    net = load_classifier(folder / "net.safetensors")
    with torch.no_grad():
        net(torch.zeros(1, 1, 8, 8))


FORMATS: dict[str, Format] = {
    "shards": Format("shards, index, dataset.json", shards, read_shards, seal_shards),
    "checkpoint": Format(
        "run folder with a checkpoint", checkpoint, read_network, seal_checkpoint
    ),
    "exported": Format("exported folder", exported, read_network),
    "diffusers": Format("folder of diffusers", diffusers, lambda f: read_network(f, "unet")),
    "served": Format("registered model", served, read_served),
    "paper": Format(
        "checkpoint of the paper's code", paper, lambda f: read_network(f, "ckpt.pt")
    ),
    "network": Format("weights of an extractor", network_file, read_inception),
    "classifier": Format("classifier", classifier, read_classifier),
    "samples": Format(".npz of images", samples, read_samples),
    "pictures": Format("images for data_prep", pictures, read_pictures),
    "tars": Format("foreign tars for data_prep", tars, read_tars),
    "pickled": Format("CIFAR's pickles", pickled, read_pickled),
    "preset": Format("preset file", preset_file, read_preset),
    "search": Format("records of a search", search, lambda f: TrialStore(Storage(str(f)))),
}


def example(name: str, folder: Path) -> Files:
    """The files of a valid example by their paths in a folder."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    FORMATS[name].make(home)
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in sorted(home.rglob("*"))
        if file.is_file() and not file.name.endswith(".lock")
    }
