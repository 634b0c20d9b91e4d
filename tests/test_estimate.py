"""What is said before a run: how long it takes, and what makes it too short."""

import re
from dataclasses import replace

import pytest

from cbdm_scale.config.presets import PRESETS, PUBLISHED, preset
from cbdm_scale.evaluation.pace import images_to_make
from cbdm_scale.runs.estimate import disk_megabytes, estimate_time, short_run_warnings
from cbdm_scale.train import main


def short(total, **others):
    config = preset("digits_lt")
    return replace(config, train=replace(config.train, total_images=total, **others))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (short(9_000), ["warmup_images (4,800) is more than half", "still 69% the random"]),
        (short(9_600, ema_halflife=9_600), ["still 50% the random ones of the start"]),
        (short(9_600, ema_halflife=2_000), []),
        (short(9_600, ema_ramp=0.05), []),
        (short(960, warmup_images=0, ema_halflife=96), ["no loss is logged"]),
    ],
)
def test_a_run_that_is_too_short_to_show_anything_is_warned_of(config, words):
    found = short_run_warnings(config)
    assert len(found) == len(words)
    for text, part in zip(found, words, strict=True):
        assert part in text and "Try --train." in text


def test_no_preset_is_warned_of():
    assert [key for key, make in PRESETS.items() if short_run_warnings(make())] == []


def test_fine_tuning_does_not_start_with_random_averages():
    assert not short_run_warnings(replace(short(9_600, ema_halflife=9_600), init_from="run"))


def test_the_estimate_counts_the_sets_of_all_evaluations():
    config = preset("digits_lt")
    config = replace(
        config,
        train=replace(config.train, eval_every=24_000, eval_at=(1_000,)),
        eval=replace(config.eval, guidance=(0.0, 1.0, 2.0)),
    )
    lines = estimate_time(config, PUBLISHED["digits_lt"])
    # At 1,000, 24,000 and 48,000 with the first strength; all three at the end, with a grid.
    at_end = images_to_make(config, 10, 72_000, waits=True) - 3_000
    words = lines["time of evaluations"]
    assert re.search(r" for 6 x 1,000 images and ([\d,]+) of grids$", words)
    grids = int(words.split()[-3].replace(",", ""))
    assert grids > at_end == 100
    assert "by a worker on the" in lines["images a second"] and lines["time of training"]
    learnt, both = round(72_000 * config.loss.predictions), config.sample.calls * 2
    evaluations = f"{(6_000 + grids) * both:,} in evaluations and grids"
    assert lines["network calls"] == f"{learnt:,} in training, {evaluations}"
    assert re.fullmatch(r"[\d.,e-]+ (core|GPU)-hours", lines["cost"])
    kept = replace(config.train, keep_checkpoints=4, posthoc_every=24_000)
    assert disk_megabytes(replace(config, train=kept), 10.0) == 7 * 10 + 3 * 5
    config = replace(config, eval=replace(config.eval, extractor="none"))
    assert "time of evaluations" not in estimate_time(config, PUBLISHED["digits_lt"])
    config = replace(config, eval=replace(config.eval, extractor="inception"))
    told = estimate_time(config, PUBLISHED["digits_lt"])["time of evaluations"]
    assert told.endswith("grids; what inception takes is not in it")


def test_a_dry_run_needs_no_data_of_a_published_set(tmp_path, capsys):
    words = ["--dataset", "cifar10-lt", "--preset", "small", "--data.root", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "training images: 12406" in lines and "classes: 10" in lines
    assert (
        f"note: {tmp_path}/cifar10_lt is not there yet; these are the published numbers"
        in lines
    )
    assert [line for line in lines if line.startswith("run megabytes at most: ")]
    assert not any(tmp_path.iterdir())
    assert main(words) == 1  # without the data it does not train


def test_published_numbers_are_those_of_the_data_that_is_made(digits_root):
    from cbdm_scale.data.manifest import read_manifest

    manifest = read_manifest(str(digits_root), "digits_lt")
    known = PUBLISHED["digits_lt"]
    assert (known.channels, known.image_size, known.num_classes, known.train_images) == (
        manifest.channels,
        manifest.image_size,
        manifest.num_classes,
        manifest.num_images("train"),
    )
