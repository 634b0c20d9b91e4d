"""The sample command in one process; what several processes add is in test_pool.py."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from sampling_tools import make_run, only_set

from cbdm_scale.config.schema import from_dict
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.generation.chunks import make_chunk
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sample import COMMAND, SampleOptions, main, parse
from cbdm_scale.sampling.sampler import Sampler
from cbdm_scale.storage.folder import Storage

ROOT = Path(__file__).parents[1]
HERE = ("--cluster.workers", "0")


def sample(*words: str) -> int:
    return main([*words, *HERE])


def npz(run: str, *words: str, images: int = 30) -> tuple[np.ndarray, np.ndarray]:
    assert sample("--run", run, "--format", "npz", *words) == 0
    found = only_set(words[words.index("--out") + 1] if "--out" in words else f"{run}/samples")
    with np.load(found.local_path(f"images-{images}.npz"), allow_pickle=False) as file:
        return file["arr_0"], file["arr_1"]


def network(run: str) -> tuple[torch.nn.Module, object]:
    config = from_dict(json.loads(Path(run, "config.json").read_text()))
    net = build(NetworkSpec(model=config.model, channels=1, image_size=8, num_classes=10))
    newest = max(Path(run, "checkpoints").iterdir())
    net.load_state_dict(load((newest / "ema.safetensors").read_bytes()))
    return net.eval(), config


# ----------------------------------------------------------------------------
# What is made.


def test_the_set_is_what_generate_makes_of_the_average_weights_and_the_runs_options(run):
    images, labels = npz(run)
    net, config = network(run)
    y = torch.arange(30) % 10
    sampler = Sampler(
        shape=(1, 8, 8),
        null_label=10,
        process=LinearSchedule(config.diffusion),
        config=config.sample,
        seed=0,
        chunk_size=8,
    )
    expected = sampler.generate(net, torch.arange(30), y, omega=1.0)
    assert labels.tolist() == y.tolist() and labels.dtype == np.int64
    assert images.dtype == np.uint8 and images.shape == (30, 8, 8, 1)
    assert np.array_equal(images, to_uint8(expected).permute(0, 2, 3, 1).numpy())


def test_another_chunk_size_makes_the_same_images_to_1e_4(run):
    pretrained, real = load_pretrained(run), None
    made = []
    for size in (8, 30, 7):
        options = SampleOptions(run=run, chunk_size=size, sample=pretrained.config.sample)
        plan = options.plan(pretrained, real, 1.0)
        net, config = network(run)
        schedule, cpu = LinearSchedule(config.diffusion), torch.device("cpu")
        parts = [make_chunk(plan, net, schedule, chunk, cpu) for chunk in plan.chunks(30)]
        made.append(torch.cat(parts))
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=1e-4, atol=1e-4)


def test_options_reach_the_images(run, tmp_path):
    sets = [npz(run, "--out", str(tmp_path / "0"))[0]]
    for i, words in enumerate(
        [
            ("--guidance", "0"),
            ("--seed", "1"),
            ("--weights", "raw"),
            ("--sample.name", "dpm"),
            ("--sample.num-steps", "4"),
            ("--sample.guidance-to", "0.6"),
            ("--precision", "bf16"),
        ]
    ):
        sets.append(npz(run, "--out", str(tmp_path / f"{i + 1}"), *words)[0])
    for i, one in enumerate(sets):
        assert not any(np.array_equal(one, other) for other in sets[:i]), i


def test_classes_take_turns_or_are_drawn(run, tmp_path):
    _, labels = npz(run, "--out", str(tmp_path / "a"), "--classes", "3", "7")
    assert labels.tolist() == [3, 7] * 15
    words = ("--labels", "train", "--classes", "0", "9", "--num-images", "400")
    # One step is enough to see labels.
    quick = ("--sample.num-steps", "1", "--chunk-size", "400", "--guidance", "0")
    _, labels = npz(run, "--out", str(tmp_path / "b"), *words, *quick, images=400)
    counts = np.bincount(labels, minlength=10)  # 174 images of class 0, 2 of class 9
    assert counts[[0, 9]].sum() == 400 and 0 < counts[9] < 20


# ----------------------------------------------------------------------------
# How it goes on.


def test_finished_chunks_are_kept_and_damaged_ones_made_again(run, capsys):
    whole = npz(run)[0]
    found = only_set(f"{run}/samples")
    chunks = sorted(found.local_path("chunks").iterdir())
    assert [c.name for c in chunks] == [
        f"{a:09d}-{b:09d}.safetensors" for a, b in [(0, 8), (8, 16), (16, 24), (24, 30)]
    ]
    before = chunks[0].stat().st_mtime_ns
    chunks[1].unlink()
    chunks[2].write_bytes(chunks[2].read_bytes()[:100])
    capsys.readouterr()
    assert np.array_equal(npz(run)[0], whole)
    out = capsys.readouterr().out
    assert "14 of 30 images are there already" in out and "16 made now" in out
    assert chunks[0].stat().st_mtime_ns == before


def test_a_larger_set_keeps_what_the_smaller_one_had(run, capsys):
    few = npz(run, "--num-images", "24", images=24)[0]
    capsys.readouterr()
    more = npz(run, "--num-images", "40", images=40)[0]
    assert "24 of 40 images are there already" in capsys.readouterr().out
    assert np.array_equal(more[:24], few)


def test_a_bit_that_flipped_in_a_chunk_is_named(run, capsys):
    npz(run)
    chunk = min(only_set(f"{run}/samples").local_path("chunks").iterdir())
    data = bytearray(chunk.read_bytes())
    data[-5] ^= 1
    chunk.write_bytes(data)
    assert sample("--run", run, "--format", "npz") == 1
    error = capsys.readouterr().err
    assert f"chunk {chunk} is damaged" in error and "Remove it" in error


def test_killed_with_9_the_same_command_ends_in_the_same_bytes(run, tmp_path):
    words = ("--run", run, "--num-images", "160", "--sample.num-steps", "8", "--format", "npz")
    chunks = tmp_path / "killed"
    command = [sys.executable, "-m", "cbdm_scale.sample", *words, "--out", str(chunks), *HERE]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(chunks.glob("*/chunks/*.safetensors"))) < 2:
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    made = len(list(chunks.glob("*/chunks/*.safetensors")))
    assert 2 <= made < 20
    assert main([*words, "--out", str(chunks), *HERE]) == 0
    assert main([*words, "--out", str(tmp_path / "whole"), *HERE]) == 0
    a, b = (only_set(str(f)).read_bytes("images-160.npz") for f in (chunks, tmp_path / "whole"))
    assert a == b


# ----------------------------------------------------------------------------
# The forms.


def test_png_is_a_folder_a_class_with_the_images_by_number(run):
    images, labels = npz(run)
    assert sample("--run", run) == 0
    folder = only_set(f"{run}/samples").local_path("png-30")
    files = sorted(folder.rglob("*.png"), key=lambda f: f.name)
    assert [f.name for f in files] == [f"{i:06d}.png" for i in range(30)]
    assert [int(f.parent.name) for f in files] == labels.tolist()
    for file, image in zip(files, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), image[..., 0])


def test_shards_are_a_data_set_with_the_real_eval_split(run, digits_root):
    images, labels = npz(run)
    assert sample("--run", run, "--format", "shards", "--dataset", "made-digits") == 0
    root = str(only_set(f"{run}/samples").local_path("shards-30"))
    manifest, real = read_manifest(root, "made_digits"), read_manifest(digits_root, "digits_lt")
    assert manifest.counts["train"] == (3,) * 10
    assert manifest.counts["eval"] == real.counts["eval"]
    index = open_index(root, "made_digits", "train")
    reader = ShardReader(root, "made_digits", index)
    for row in range(30):
        number = int(index.key(row).removeprefix("made-"))
        assert index.labels[row] == labels[number]
        assert np.array_equal(reader.load(row)[0], images[number, ..., 0])


@pytest.mark.parametrize("form", ["png", "npz", "shards"])
def test_sets_go_to_urls_too(run, form, tmp_path):
    out = f"memory://sets-{form}"
    assert sample("--run", run, "--out", out, "--format", form) == 0
    assert sample("--run", run, "--out", str(tmp_path), "--format", form) == 0
    there, here = only_set(out), only_set(str(tmp_path))
    assert len(there.child("chunks").list()) == 4
    local = [f for f in here.local_path().rglob("*") if f.is_file()]
    assert len(local) > 6
    for file in local:
        name = file.relative_to(here.local_path()).as_posix()
        assert there.read_bytes(name) == file.read_bytes(), name


def test_the_grid_has_a_row_of_ten_for_every_class_that_occurs(run):
    assert sample("--run", run, "--num-images", "40", "--classes", "3", "7") == 0
    grid = Image.open(only_set(f"{run}/samples").local_path("grid-40.png"))
    scale = 4  # 8 pixels become 32
    rows = (10 * 9 + 1) * scale, (2 * 9 + 1) * scale
    assert grid.width > rows[0], "names of the classes before the rows"
    above = grid.height - rows[1]  # how many classes of the ten
    images = np.asarray(grid)[above:, -rows[0] :]
    assert above and images.std() > 20 and (np.asarray(grid)[:above, -40:] == 255).all()


# ----------------------------------------------------------------------------
# What is said.


def test_the_runs_own_configuration_decides_the_defaults(run):
    options, pretrained, _ = parse(["--run", run, "--seed", "5"])
    assert pretrained and options.sample == pretrained.config.sample
    assert (options.num_images, options.guidance, options.chunk_size) == (30, (1.0,), 8)
    assert options.seed == 5


def test_the_last_lines_are_where_how_many_and_the_next_command(run, capsys):
    assert sample("--run", run, "--num-images", "10") == 0
    lines = capsys.readouterr().out.splitlines()
    found = only_set(f"{run}/samples")
    assert "note: the network has seen 48 of the run's 480 images" in lines
    assert lines[-3].startswith(f"images   {found.path('png-10')} (10 images, 10 made now, ")
    assert lines[-2] == f"grid     {found.path('grid-10.png')}"
    following = f"{COMMAND.prog} --run {run} --num-images 10 --cluster.workers 0 --format npz"
    assert lines[-1] == f"next     {following}"


def test_the_next_command_is_the_same_with_another_format():
    typed = COMMAND.read(["--run", "a b", "--format", "png", "--seed=1"])
    following = f"{COMMAND.prog} --run 'a b' --format npz --seed 1"
    assert COMMAND.line(typed, format="npz") == following


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--classes", "3", "12"), r"classes: 12 is no class .* 0 to 9"),
        (("--labels", "uniform"), r"labels \(uniform\) must be cyclic, train, sqrt, bal or"),
        (("--num-images", "0"), "num_images must be at least 1, got 0"),
        (("--chunk-size", "0"), "chunk_size must be at least 1, got 0"),
        (("--guidance", "-1"), "guidance must be at least 0, got -1"),
        (("--sample.num-steps", "2000"), r"sample.num_steps \(2000\) must be between 1 and"),
        (("--data.root", "/nowhere"), r"data.root: .*/nowhere.* holds no data set digits_lt"),
        (("--sample.eta", "2"), "sample.eta must be from 0 to 1, got 2"),
        (("--cluster.workers", "-1"), "cluster.workers must be at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_named(run, capsys, words, message):
    try:
        status = main(["--run", run, *HERE, *words])
    except SystemExit as stopped:  # of a word that is no option
        status = stopped.code
    assert status
    assert re.search(message, capsys.readouterr().err)
    assert not Storage(f"{run}/samples").list()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(run, capsys):
    assert sample("--run", run, "--cluster.device", "gpu") == 1
    assert "cluster.device (gpu) needs a GPU on this machine" in capsys.readouterr().err


def test_training_counts_that_are_gone_are_missed_only_where_they_are_needed(
    tmp_path, digits_root, capsys
):
    run = make_run(tmp_path / "runs", digits_root)
    about = json.loads(Path(run, "config.json").read_text())
    about["data"]["root"] = str(tmp_path / "moved")
    Path(run, "config.json").write_text(json.dumps(about))
    assert sample("--run", run, "--labels", "sqrt") == 1
    assert "labels (sqrt) needs the class counts" in capsys.readouterr().err
    assert sample("--run", run) == 0
    words = ("--run", run, "--labels", "sqrt", "--data.root", digits_root)
    assert sample(*words) == 0


def test_a_set_of_another_format_is_left_alone(run, capsys):
    assert sample("--run", run) == 0
    found = only_set(f"{run}/samples")
    found.write_json("set.json", found.read_json("set.json") | {"format_version": 9})
    assert sample("--run", run) == 1
    assert "format version 9, not 1" in capsys.readouterr().err
