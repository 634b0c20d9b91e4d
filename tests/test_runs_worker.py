"""How a rank ends."""

import itertools
from dataclasses import replace

import torch
from gloo_tools import tiny_config
from record_tools import write_training_record
from torch.nn.modules.module import register_module_forward_pre_hook

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.unet import UNet
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World


def test_a_run_that_only_loses_ends_says_so_and_has_ended_when_it_is_typed_again(
    digits_root, tmp_path
):
    """The step under way is taken; a larger patience goes on to the last image."""
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (tmp_path / "net.safetensors").write_bytes(save_classifier(net))
    config = tiny_config(digits_root, str(tmp_path), "run", steps=8, dropout=0.0)
    config = replace(
        config,
        train=replace(config.train, eval_every=24, patience=1, keep_checkpoints=1),
        eval=EvalConfig(extractor=f"classifier:{tmp_path / 'net.safetensors'}", num_images=30),
    )
    manifest = read_manifest(digits_root, config.dataset)
    folder, said = open_run_dir(config, manifest), []
    evaluator = Evaluator(config, manifest, build_process(config.noise), World(), folder)
    for num_seen, fid in ((24, 1e-9), (48, 2e-9), (72, 3e-9)):
        scores = {"1.0": {"fid": fid, "fid_few": fid}}
        write_training_record(folder, num_seen, scores, evaluator.key)

    def go(config):
        said.clear()
        given = {"config": config, "tracking_uri": "", "run_id": ""}
        return run_rank(World(), lambda *_: None, said.append, **given)

    first = go(config)
    assert (first["how"], first["progress"]["num_seen"]) == ("finished", 60)
    words = [line for line in map(str, said) if line.startswith("ended: fid has not been")]
    _, ended, best, _ = first["remarks"]
    assert [ended] == [line.replace("ended: ", "ended    ") for line in words]
    assert best.startswith(f"best     {folder.path(RunDir.checkpoint(24))} ")
    assert [name[-5:] for name in RunDir(folder).checkpoints()] == ["00024", "00060"]
    again = go(config)
    assert (again["resumed_at"], again["progress"]) == (60, first["progress"])
    assert again["how"] == "finished" and again["scores"] == first["scores"]
    assert f"{words[0]}. A larger --train.patience, or 0, goes on." in map(str, said)
    more = go(replace(config, train=replace(config.train, patience=0)))
    assert (more["how"], more["progress"]["num_seen"]) == ("finished", 96)


def test_a_gpu_that_is_too_small_ends_a_run_in_words_without_a_checkpoint(
    digits_root, tmp_path
):
    """What comes back as an error is not tried again; the state may be amid a step."""
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.0)
    folder = open_run_dir(config, read_manifest(digits_root, config.dataset))
    counted = itertools.count()

    def too_large(module, given):
        if isinstance(module, UNet) and next(counted) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = register_module_forward_pre_hook(too_large)
    try:
        how = run_rank(World(), print, print, config=config, tracking_uri="", run_id="")
    finally:
        hook.remove()
    assert "12 images at once" in how["error"] and "--train.micro-batch 6," in how["error"]
    assert not RunDir(folder).checkpoints()
