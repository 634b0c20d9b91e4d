"""A run folder with a checkpoint of a small network whose weights are noise."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cbdm_scale.config.presets import find_preset
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import BackboneName, ModelConfig, UNetConfig
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import build_state
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.checkpoint import save_checkpoint

MODEL = UNetConfig(channels=8, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=4)


def make_run(
    runs: Path,
    root: str,
    images: tuple[int, ...] = (48,),
    row: str = "cbdm",
    dataset: str = "digits_lt",
    backbone: BackboneName = "unet",
    model: ModelConfig = MODEL,
    loss: LossConfig | None = None,
) -> str:
    """The folder of a run, with a checkpoint after each number of images."""
    base = find_preset(dataset, row, root)
    config = replace(
        base,
        name="noise",
        backbone=backbone,
        model=model,
        loss=loss or base.loss,
        data=replace(base.data, root=root),
        train=replace(base.train, total_images=480),
        sample=replace(base.sample, num_steps=3),
        eval=replace(base.eval, num_images=30, chunk_size=8),
        cluster=replace(base.cluster, storage=str(runs)),
    )
    manifest = read_manifest(root, dataset)
    run = open_run_dir(config, manifest)
    for seen in images:
        _write_checkpoint(run, config, manifest, seen)
    return run.url


_CHECKPOINTS: dict[str, dict[str, bytes]] = {}
"""What decides a checkpoint -> its files: they are made once a process."""


def _write_checkpoint(run: Storage, config: Config, manifest: Manifest, seen: int) -> None:
    parts = config.train, config.loss, network_spec(config, manifest), seen
    files = _CHECKPOINTS.get(repr(parts), {})
    for name, data in files.items():
        run.write_bytes(f"{RunDir.checkpoint(seen)}/{name}", data)
    if not files:
        state = build_state(config, manifest, torch.device("cpu"))
        generator = torch.Generator().manual_seed(seen)
        with torch.no_grad():
            for weights in (state.net, state.ema.net):
                for parameter in weights.parameters():
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        state.progress.num_seen = seen
        made = run.child(save_checkpoint(run, state, {}))
        _CHECKPOINTS[repr(parts)] = {name: made.read_bytes(name) for name in made.files()}


@pytest.fixture
def run(tmp_path: Path, digits_root: str) -> str:
    return make_run(tmp_path / "runs", digits_root)


def only_set(samples: str) -> Storage:
    """The one set in a folder of sets."""
    folder = Storage(samples)
    [name] = [name for name in folder.list() if folder.exists(f"{name}/set.json")]
    return folder.child(name)
