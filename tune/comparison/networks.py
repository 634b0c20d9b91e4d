"""Networks of a comparison: trained by the train command's own loop, kept at every stop.

networks/<row>-seed<k>/config.json                     as of any run
networks/<row>-seed<k>/checkpoints/<num_seen>/         the newest, to go on from
networks/<row>-seed<k>/stops/<num_seen>.safetensors    averaged weights at a stop
"""

from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load
from torch import nn

from cbdm_scale.cli.signals import interrupt
from cbdm_scale.cluster.stop import stop_on_signal
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World

KEEP_ALL = 1_000_000
REPORTS = 4
"""Lines that a network says of its losses."""


def network_name(row: str, seed: int) -> str:
    """The folder of a network."""
    return f"{row}-seed{seed}"


def weights_file(images: int) -> str:
    """Where the averaged weights after so many images are kept."""
    return f"stops/{images:012d}.safetensors"


def train_network(
    config: Config,
    manifest: Manifest,
    stops: Sequence[int],
    device: torch.device,
    log: Callable[[str], None],
) -> None:
    """Train a network until the averaged weights after each of ``stops`` images are kept.

    Goes on from the newest checkpoint. One that has gone past a stop that was not asked for
    then is trained anew. Where a signal asks it to stop, it is saved before ``Interrupted``.
    """
    run = Storage(config.cluster.storage).child(config.run_name)
    there = {int(name.rpartition("/")[2]): name for name in RunDir(run).checkpoints()}
    missing = sorted(stop for stop in stops if not run.exists(weights_file(stop)))
    if not missing:
        return
    newest = max(there, default=0)
    if any(stop <= newest and stop not in there for stop in missing):
        run.remove(RunDir.CHECKPOINTS)
    config = with_options(
        config,
        {
            "train.total_images": max(stops),  # of which schedules are shares
            "train.eval_at": missing,
            "train.eval_every": 0,
            "train.sample_every": 0,
            "train.posthoc_every": 0,
            "train.log_every": -(-max(stops) // REPORTS),
            "train.keep_checkpoints": KEEP_ALL,
            "eval.extractor": "none",
            "cluster.workers": 0,
        },
    )
    open_run_dir(config, manifest)
    lines: list[str] = []

    def keep_and_log(text: str) -> None:
        lines.append(text)
        log(text)

    with stop_on_signal(run, lambda: bool(lines)) as asked:
        outcome = run_rank(
            World(device),
            lambda path, metrics: None,
            keep_and_log,
            config=config,
            tracking_uri="",
            run_id="",
        )
    if asked:
        interrupt(asked[0])
    if outcome.get("how") != "finished":
        raise ValueError(f"{config.run_name}: {outcome.get('error') or 'was asked to stop'}")
    for stop in missing:
        weights = run.read_bytes(f"{RunDir.checkpoint(stop)}/{RunDir.EMA}")
        run.write_bytes(weights_file(stop), weights)
    for name in RunDir(run).checkpoints()[:-1]:
        run.remove(name)


def open_network(
    config: Config, manifest: Manifest, images: int, device: torch.device
) -> nn.Module:
    """The averaged network after so many images, for sampling."""
    run = Storage(config.cluster.storage).child(config.run_name)
    net = build(network_spec(config, manifest))
    net.load_state_dict(load(run.read_bytes(weights_file(images))))
    net = net.to(device).eval().requires_grad_(False)
    return net.to(memory_format=torch.channels_last) if config.train.channels_last else net
