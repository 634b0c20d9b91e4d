"""Which numbers of a run have a chart in MLflow, and that its note explains every one."""

from dataclasses import replace

import torch
from gloo_tools import tiny_config
from report_tools import example

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.runs.launch import described_tags, open_run_dir
from cbdm_scale.runs.logged_metrics import logged, meaning
from cbdm_scale.runs.worker import Run
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.checkpoint import Progress
from cbdm_scale.training.distributed import World

METER = {"loss/total": 1.2, "loss/dm": 1.0, "lr": 1e-3, "paused_s": 0.0}


def test_a_value_that_follows_from_another_has_no_chart_of_its_own():
    quiet = Progress(substitutions=[0, 0])
    found = logged(METER | {"loss/r": 0.2, "loss/rc": 0.2}, quiet, ("many", "few"))
    assert found == {"loss/total": 1.2, "loss/dm": 1.0, "loss/r": 0.2, "lr": 1e-3}
    assert set(logged(METER, quiet, ("many", "few"))) == {"loss/total", "lr"}, "DDPM's own term"


def test_counters_have_a_chart_once_they_count_and_by_group():
    progress = Progress(skipped_steps=3, substitutions=[0, 2, 5])
    found = logged(METER | {"paused_s": 4.0}, progress, ("many", "few", "few"))
    counts = {"paused_s": 4.0, "skipped_steps": 3, "substitutions": 7, "substitutions/few": 7}
    assert counts.items() <= found.items() and "substitutions/many" not in found


class Names(Tracker):
    def __init__(self):
        self.found = set()

    def scalars(self, step, values):
        self.found |= values.keys()


def test_every_metric_of_a_run_is_explained_in_its_note(digits_root, tmp_path):
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (tmp_path / "net.safetensors").write_bytes(save_classifier(net))
    config = tiny_config(digits_root, str(tmp_path), "run", steps=2, dropout=0.0)
    config = replace(
        config,
        loss=LossConfig(tcfg=True),
        eval=EvalConfig(
            extractor=f"classifier:{tmp_path / 'net.safetensors'}",
            num_images=30,
            recall_images=20,
        ),
    )
    manifest = read_manifest(digits_root, config.dataset)
    folder, names = open_run_dir(config, manifest), Names()
    Run(config, World(), folder, names, lambda path, seen: None, lambda text: None).go()
    assert {"loss/g", "eval/guidance_1/fid_few", "eval/guidance_1/recall"} < names.found
    by_command = example(3).metrics(config.eval)
    tags = described_tags(config, manifest, "the reference is long")
    text = tags["mlflow.note.content"]
    assert tags["reference_warning"] == "the reference is long"
    assert described_tags(config, manifest, "").keys() == {"mlflow.note.content"}
    unexplained = [n for n in (*names.found, *by_command) if f"| {meaning(n)} |" not in text]
    assert not unexplained
    assert len(text) < 5_000, "the longest tag that every server takes"
    assert "cbdm_tcfg on digits_lt: 10 classes of 174 down to 2" in text
    assert "**Warning**: the reference is long" in text
