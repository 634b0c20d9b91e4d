"""Valid examples of what the project reads, as small as they can be."""

import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.preset_file import PresetFile, preset_text
from cbdm_scale.config.presets import preset
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.export import export
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import sinusoid
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.paper_checkpoint import paper_names
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import build_state
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.state import save_checkpoint
from data_prep.options import Options
from data_prep.prepare import prepare
from tune.trials import Rung, Trial, TrialStore

NAME = "shapes"
MODEL = UNetConfig(channels=8, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=4)
FOREIGN = UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)
TABLE = "time_embedding.timembedding.0.weight"
QUIET = partial(lambda *words: None)


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


EXAMPLES: dict[str, Callable[[Path], None]] = {
    "shards": shards,
    "checkpoint": checkpoint,
    "exported": exported,
    "diffusers": diffusers,
    "served": served,
    "paper": paper,
    "network": network_file,
    "classifier": classifier,
    "samples": samples,
    "pictures": pictures,
    "tars": tars,
    "pickled": pickled,
    "preset": preset_file,
    "search": search,
}
