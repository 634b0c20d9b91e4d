"""Scores are summed share by share: the same bits from three ranks and from one process."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from gloo_tools import FORKSERVER, Job, launch, tiny_config

from cbdm_scale.config.schema import Config
from cbdm_scale.data.groups import class_groups
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator, evaluate_alone
from cbdm_scale.evaluation.store import training_evaluations
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.groups import GroupScores, stored_numbers
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.metrics.reference import LabelledFeatures, equal_manifold
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import Run
from cbdm_scale.sampling.grid import grid_order, grid_png
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import BLOCK, DistributedWorld, World, sum_in_order

RANKS = 3


def values(rank):
    """Numbers whose sum in float64 depends on the order of the ranks."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(BLOCK + 5, generator=generator, dtype=torch.float64)


def one_rank(rank, folder):
    store = dist.FileStore(str(folder / "meeting"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    total = sum_in_order(DistributedWorld(torch.device("cpu")), values(rank))
    (folder / f"{rank}.bin").write_bytes(total.numpy().tobytes())
    dist.destroy_process_group()


def test_three_ranks_sum_to_the_bits_of_one_process(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    a, b, c = (values(rank) for rank in range(RANKS))
    assert not torch.equal(a + b + c, a + (b + c)), "or the order could not show"
    ranks = [FORKSERVER.Process(target=one_rank, args=(r, tmp_path)) for r in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    expected = sum_in_order(World(), a + b + c).numpy().tobytes()
    assert all((tmp_path / f"{r}.bin").read_bytes() == expected for r in range(RANKS))


def files_of(run):
    folder = run.child("evaluation").local_path()
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()
    }


def test_one_process_writes_the_evaluation_that_three_ranks_write(tmp_path, digits_root):
    """In a run with bf16, two guidance strengths, and chunks that the ranks share unevenly."""
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (tmp_path / "net.safetensors").write_bytes(save_classifier(net))
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.1)
    config = replace(
        config,
        train=replace(config.train, eval_every=24, precision="bf16"),
        eval=EvalConfig(
            extractor=f"classifier:{tmp_path / 'net.safetensors'}",
            num_images=50,
            recall_images=20,
            chunk_size=8,
            guidance=(1.0, 0.5),
        ),
    )
    open_run_dir(config, read_manifest(digits_root, config.dataset))
    assert launch([Job(config, RANKS)], tmp_path / "launch") == [0] * RANKS
    run = Storage(str(tmp_path)).child("run")
    three = files_of(run)
    found = training_evaluations(run)
    assert list(found) == [24, 48]
    recalls = [one.recall for one in found[48].sets]
    assert len(recalls) == 2 and min(recalls) > 0.5, "rows that nobody filled are far off"
    by_group = {row.group: row.recall for row in found[48].sets[0].table.pooled}
    assert by_group[None] == recalls[0] and by_group["few"] in {n / 6 for n in range(1, 7)}
    copies = {row.group: row for row in found[48].sets[0].memorisation}
    assert copies[None].num_images == 20 and copies["few"].num_images == 6
    held = {row.group: row for row in found[48].held_out_copies}
    assert 5 < held[None].num_images < 20, "real images that were trained on are left out"
    run.remove("evaluation")
    cpu, quiet = torch.device("cpu"), lambda word: None
    evaluate_alone(cpu, 24, quiet, config=config, run=run, num_shares=RANKS, log=quiet)
    one = files_of(run)
    assert len(one) == 3
    assert all(three[name] == data for name, data in one.items()), "and sums of the real images"


def test_recall_by_group_is_of_the_stored_images_of_these_classes(tmp_path, digits_root):
    """Real ones as they lie in the split, generated ones class by class in turn."""
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (tmp_path / "net.safetensors").write_bytes(save_classifier(net))
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.0)
    extractor = f"classifier:{tmp_path / 'net.safetensors'}"
    evals = EvalConfig(extractor=extractor, num_images=60, recall_images=60, seed=4)
    manifest, index = (
        read_manifest(digits_root, "digits_lt"),
        open_index(digits_root, "digits_lt", "eval"),
    )
    process, run = build_process(config.noise), Storage(str(tmp_path))
    config = replace(config, eval=evals)
    references = Evaluator(config, manifest, process, World(), run).references
    real, fake = references.real(), references.empty(60)
    fake.stored = real.stored[torch.randperm(60)] + real.stored.std() * torch.randn(60, 64)
    found = references.manifold(fake)
    labels = torch.from_numpy(index.labels[stored_numbers(index.num_samples, 60).numpy()])
    for group in ("many", "medium", "few"):
        classes = torch.tensor([c for c, g in enumerate(manifest.groups) if g == group])
        a, b = (torch.isin(y, classes) for y in (labels, torch.arange(60) % 10))
        sides = (
            LabelledFeatures(real.stored[a].float(), labels[a]),
            LabelledFeatures(fake.stored[b].float(), labels[b]),
        )
        assert found[group] == equal_manifold(*sides, weigh=False, seed=4)
        assert found[group].num_real == min(a.sum(), b.sum())


def tiny_net(x, level, y, omega=None, augment=None):
    return x * 0.5 + y.view(-1, 1, 1, 1) / 100


def test_a_grid_of_many_classes_makes_the_images_that_it_shows(digits_root, tmp_path):
    """Ten of 30 classes over the whole tail, and they are those of the whole set."""
    counts = tuple(range(100, 0, -1))
    manifest = replace(
        read_manifest(digits_root, "digits_lt"),
        class_names=tuple(f"class {c}" for c in range(100)),
        counts={"train": counts},
        groups=class_groups(counts),
    )
    config = tiny_config(digits_root, str(tmp_path), "run", steps=1, dropout=0.0)
    process, run = build_process(config.noise), Storage(str(tmp_path))
    evaluator, made = Evaluator(config, manifest, process, World(), run), []
    evaluator.on_chunk = made.append
    png = evaluator.grid(tiny_net)
    assert sum(made) == 30 * 10
    every = evaluator.generate(tiny_net, torch.arange(1000), config.eval.guidance[0], 0, 1)
    labels, images = (torch.cat([chunk[i] for chunk in every]) for i in (1, 2))
    assert png == grid_png(images, labels, grid_order(counts), manifest.class_names, counts)


class Grids(Tracker):
    def __init__(self):
        self.at = []

    def image(self, step, name, png):
        self.at.append(step)


@pytest.mark.parametrize("every, at", [(0, []), (24, [24, 48]), (1000, [48])])
def test_a_grid_at_every_interval_one_at_the_end_and_none_for_0(
    digits_root, tmp_path, every, at
):
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.0)
    config = replace(config, train=replace(config.train, sample_every=every))
    folder = open_run_dir(config, read_manifest(digits_root, config.dataset))
    world, grids = World(), Grids()
    Run(config, world, folder, grids, lambda path, seen: None, lambda text: None).go()
    assert grids.at == at
    assert folder.child("samples").list() == [f"{seen:012d}.png" for seen in at]


class Second(World):
    """Rank 1 of two, which hears from rank 0 what it is told to."""

    rank, size, heard = 1, 2, "what rank 0 found"

    def gather(self, value):
        assert value is None, "nothing was computed"
        return [self.heard, value]


def test_only_rank_0_takes_the_roots_of_matrices(monkeypatch):
    """Of no images there are none: who tried would raise."""
    scores = GroupScores(("many", "medium", "few"), 4)
    references = SimpleNamespace(
        load=lambda: None,
        real=lambda: scores,
        total=lambda count, num_stored: scores,
        copies=lambda fake: (),
        manifold=lambda fake: None,
    )
    monkeypatch.setattr(Evaluator, "references", references, raising=False)
    config = replace(Config(), eval=EvalConfig(extractor="none"))
    manifest = SimpleNamespace(counts={"train": [9, 5, 1]}, groups=scores.groups)
    for world in (World(), Second()):
        evaluator = Evaluator(config, manifest, None, world, None)
        if world.rank == 0:
            with pytest.raises(ValueError, match="at least 2 images"):
                evaluator._set_result(None, 1.0)
        else:
            assert evaluator._set_result(None, 1.0) == Second.heard
