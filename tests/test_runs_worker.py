"""How a rank ends."""

import itertools
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gloo_tools import tiny_config
from record_tools import write_training_record
from torch.nn.modules.module import register_module_forward_pre_hook

from cbdm_scale.cluster import progress
from cbdm_scale.cluster.progress import FIRST_LINE_S
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.unet import UNet
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.sampling.options import SamplerConfig
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World, never


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


class Watched(World):
    """Knows whether the others would hear of what fails now."""

    told = False

    @contextmanager
    def monitored_barrier(self, stopped=never):
        before, self.told = self.told, True
        with super().monitored_barrier(stopped) as check:
            yield check  # as it is where the work fails: told
        self.told = before


def full(*given, **named):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd more")


IN_EVALUATIONS = {
    "the grid": (UNet, {"sample_every": 24}, "100 images at once (eval.chunk_size)", 50),
    "an evaluation": (UNet, {"eval_every": 24}, "30 images at once (eval.chunk_size)", 15),
    "features": (SmallClassifier, {"eval_every": 24}, "a GPU that nothing else uses", 0),
}


@pytest.mark.parametrize("where", [*IN_EVALUATIONS, "the state"])
def test_too_little_memory_anywhere_ends_a_run_once_with_what_helps(
    where, digits_root, tmp_path, monkeypatch
):
    """As an error that every rank hears of and that comes back: not tried again."""
    (tmp_path / "net.safetensors").write_bytes(
        save_classifier(SmallClassifier(image_channels=1, image_size=8, num_classes=10))
    )
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.0)
    kind, options, words, less = IN_EVALUATIONS.get(where, (None, {}, "the network and its", 0))
    eval_options = EvalConfig(
        extractor=f"classifier:{tmp_path / 'net.safetensors'}", num_images=30
    )
    config = replace(config, train=replace(config.train, **options), eval=eval_options)
    open_run_dir(config, read_manifest(digits_root, config.dataset))
    world = Watched()

    def too_large(module, given):
        if kind and isinstance(module, kind) and not module.training:
            full()

    if where == "the state":
        monkeypatch.setattr(torch.optim, "Adam", full)
    hook = register_module_forward_pre_hook(too_large)
    try:
        how = run_rank(world, print, print, config=config, tracking_uri="", run_id="")
    finally:
        hook.remove()
    assert world.told
    assert how["error"].startswith("a GPU has not enough memory for ") and words in how["error"]
    assert "Tried to allocate 2.00 GiB. Try " in how["error"] and "more" not in how["error"]
    assert not less or how["error"].endswith(f"Try --eval.chunk-size {less}.")


def test_the_first_line_of_training_comes_by_time_and_has_the_evaluations_in_it(
    digits_root, tmp_path, monkeypatch
):
    """However many images --train.log-every is; no clock but this one goes."""
    now, said = itertools.count(0.0, 1.5), []
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    config = tiny_config(digits_root, str(tmp_path), "run", steps=40, dropout=0.0)
    config = replace(config, train=replace(config.train, log_every=10**6, sample_every=10**6))
    run_rank(
        *(World(), lambda *_: None),
        lambda text: said.append((next(now), str(text))),
        config=replace(config, eval=EvalConfig(extractor="none")),
        tracking_uri="",
        run_id="",
    )
    began = next(at for at, text in said if text.startswith("workers (host:pid)"))
    at, first = next((at, text) for at, text in said if "/480 images | " in text)
    assert at - began <= FIRST_LINE_S + 10, first
    assert first.endswith(" left, then 100 images to make"), "the grid at the end"


def files_of(folder):
    """What a run has made, of which nothing depends on when it was made."""
    home = folder.local_path()
    kept = [
        p for name in ("samples", "evaluation", "posthoc") for p in (home / name).rglob("*")
    ]
    kept += (home / "checkpoints").rglob("*.safetensors")
    return {str(p.relative_to(home)): p.read_bytes() for p in kept if p.is_file()}


def test_a_run_stops_in_the_images_that_it_makes_and_ends_in_the_same_bits(
    digits_root, tmp_path
):
    """Asked in the first call of the network for a grid, or in the last for a score."""
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (tmp_path / "net.safetensors").write_bytes(save_classifier(net))
    tiny = tiny_config(digits_root, "", "run", steps=4, dropout=0.0)
    often = {"eval_every": 24, "sample_every": 12, "posthoc_every": 12, "keep_checkpoints": 1}
    tiny = replace(
        tiny,
        train=replace(tiny.train, **often),
        sample=SamplerConfig(num_steps=2),
        eval=EvalConfig(
            extractor=f"classifier:{tmp_path / 'net.safetensors'}",
            num_images=30,
            recall_images=20,
            guidance=(0.0,),
        ),
    )

    config = replace(tiny, cluster=replace(tiny.cluster, storage=str(tmp_path / "runs")))
    folder = open_run_dir(config, read_manifest(digits_root, config.dataset))
    given = {"config": config, "tracking_uri": "", "run_id": ""}

    def go(ask_at):
        """How often the network made images, and how the run ended."""
        counted = itertools.count()

        def ask(module, given):
            if isinstance(module, UNet) and not module.training and next(counted) == ask_at:
                folder.write_bytes(RunDir.STOP, b"SIGTERM\n")
                (watcher,) = [t for t in threading.enumerate() if t.name == "stop file"]
                watcher.join()

        hook = register_module_forward_pre_hook(ask)
        try:
            how = run_rank(World(), lambda *_: None, lambda text: None, **given)
        finally:
            hook.remove()
            folder.remove(RunDir.STOP)
        return next(counted), how["how"]

    assert go(-1) == (12, "finished"), "two for each of four grids and two scores"
    whole = files_of(folder)
    for ask_at, saved in (0, 12), (5, 24), (8, 48), (11, 48):
        shutil.rmtree(tmp_path / "runs")
        open_run_dir(config, read_manifest(digits_root, config.dataset))
        assert go(ask_at) == (ask_at + 1, "stopped")
        assert RunDir(folder).checkpoints()[-1] == RunDir.checkpoint(saved)
        assert go(-1)[1] == "finished"
        assert files_of(folder) == whole, ask_at
