"""No error is longer than a screen, however much was typed, named or answered."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from sampling_tools import make_run
from test_data_prep_label_tables import list_, write
from test_node_checks import FakeNodes, ready  # noqa: F401
from test_third_party import random_net, save, to_paper_names

from cbdm_scale.cluster.node_probes import Problem
from cbdm_scale.config.schema import Config
from cbdm_scale.data.class_names import image_labels
from cbdm_scale.data.manifest import parse_manifest
from cbdm_scale.evaluate import main as evaluate
from cbdm_scale.generation.plan import select_classes
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.transfer import transfer
from cbdm_scale.runs.listing import find_runs
from cbdm_scale.runs.node_checks import check_nodes
from cbdm_scale.sample import main as sample
from cbdm_scale.storage.checks import PositiveInt, check_name, check_value
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import describe_differences, structure, with_values
from cbdm_scale.storage.remote import StoreError, retry
from cbdm_scale.storage.wording import LONGEST, clip, shorten
from cbdm_scale.training.distributed import World, gather_errors
from cbdm_scale.training.gradients import NonFiniteGuard, RunError
from tune.comparison.protocol import Method, Phase, Protocol
from tune.identity import open_search_dir

MANY = [f"a name that is {'long ' * 30}{i}" for i in range(5000)]
LONG = "x" * 50_000
SMALL = UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)
PHASE = Phase(seeds=(0,), stops=(8,), strengths=(0.0,))


def test_short_texts_stay_and_of_long_ones_both_ends_do():
    assert clip("a" * 200) == "a" * 200 and shorten(["a", "b"]) == "a, b" and shorten([]) == ""
    assert clip("start " + LONG + " end", 40) == f"start {'x' * 11} ... {'x' * 13} end"
    assert shorten(range(8)) == "0, 1, 2, 3, 4 and 3 more"
    for most in (40, 41, 200, LONGEST):
        assert len(clip(LONG, most)) <= most


def other_search(tmp_path):
    folder = Storage(str(tmp_path / "search"))
    open_search_dir(folder, dict.fromkeys(MANY[:99], LONG))
    open_search_dir(folder, {})


def other_columns(tmp_path):
    list_(write(tmp_path / "table.csv", ",".join(MANY) + "\n"))


def other_rows(tmp_path):
    list_(write(tmp_path / "table.csv", f"path,label\na,0\nb,{LONG}\n"))


def other_weights(tmp_path):
    net = random_net(SMALL)
    weights = to_paper_names(net) | dict.fromkeys(MANY[:99], torch.zeros(1))
    load_pretrained(str(save(tmp_path / "ckpt.pt", weights)), resolution=32)


def other_network(tmp_path):
    net = random_net(SMALL)
    transfer(net, net.state_dict() | dict.fromkeys(MANY, torch.zeros(1)), [])


def other_manifest(tmp_path):
    names = ("name", "class_names", "shards_sha256", "source", "channels", "groups")
    parse_manifest(
        json.dumps({"format_version": 1, "image_size": LONG, **dict.fromkeys(names, "1")})
    )


def other_runs(tmp_path):
    for name in MANY:
        (tmp_path / name).mkdir()
    find_runs(Storage(str(tmp_path)), "mine")


def bad_samples(tmp_path):
    guard = NonFiniteGuard(max_in_a_row=1)
    guard.record(torch.tensor(float("nan")), MANY)
    guard.flush()


def refused_by_a_store(tmp_path):
    def call():
        raise OSError(LONG)

    retry(call, lambda: "read s3://bucket/file", pauses=())


def on_all_ranks(tmp_path):
    raise RunError(gather_errors(World(), f"train.lr is too high. {LONG}. Try less."))


@pytest.mark.parametrize(
    ("provoke", "said"),
    [
        (other_search, ("name (search)", "Choose another --name")),
        (other_columns, ("--source", "one column named path", "Rename them")),
        (other_rows, ("--source", "Give all as numbers or all as names")),
        (other_weights, ("ckpt.pt", "unknown tensors", "Convert it to the names")),
        (other_network, ("5000 tensors", "Leave the options of --model out")),
        (other_manifest, ("not as data_prep writes it",)),
        (other_runs, ("name (mine)", "and 4,995 more", "Give --cluster.storage")),
        (bad_samples, ("train.max_bad_steps", "lower --train.lr")),
        (refused_by_a_store, ("read s3://bucket/file",)),
        (on_all_ranks, ("train.lr", "Try less.")),
        (
            lambda _: select_classes(MANY, 3, ["a", "b", "c"]),
            ("classes:", "and 4,995 more", "Try --classes"),
        ),
        (
            lambda _: image_labels(MANY, ["a", "b"], "add (set)"),
            ("add (set)", "call the others so, or take them out"),
        ),
        (
            lambda _: check_value("part.size", LONG, PositiveInt, default=8, flag="--size"),
            ("part.size", "Try --size 8."),
        ),
        (
            lambda _: check_value("seeds", tuple(MANY), tuple[PositiveInt, ...], default=(0,)),
            ("seeds must be", "Try 0."),
        ),
        (lambda _: check_name("name", LONG), ("name (", "Try --name")),
        (lambda _: with_values(Config(), {"name": dict.fromkeys(MANY)}), ("name",)),
        (lambda _: structure(int, LONG, "train.seed"), ("train.seed takes a whole number",)),
        (
            lambda _: Protocol(
                dataset="d",
                control="c",
                rows={str(i): Method() for i in range(900)},
                screen=PHASE,
                confirm=PHASE,
            ),
            ("control (c)", "and 895 more"),
        ),
    ],
)
def test_an_error_is_short_and_keeps_the_option_and_the_way_out(tmp_path, provoke, said):
    with pytest.raises((ValueError, RunError, StoreError)) as caught:
        provoke(tmp_path)
    text = str(caught.value)
    assert len(text) <= LONGEST and all(words in text for words in said), text


def test_a_thousand_nodes_that_are_not_ready_are_counted(ready):  # noqa: F811
    nodes = FakeNodes(*map(str, range(1000)), change=lambda *_: Problem(LONG))
    with pytest.raises(ValueError, match="not ready") as caught:
        check_nodes(nodes, *ready)
    assert len(str(caught.value)) <= LONGEST and "and 997 more" in str(caught.value)


@pytest.mark.parametrize("main", [sample, evaluate])
def test_what_is_typed_has_any_length_and_the_error_has_not(capsys, main):
    assert main(["--run", f"/{'deep/' * 9000}run"]) == 1
    error = capsys.readouterr().err
    assert len(error) <= LONGEST + 1
    assert error.startswith("error: run (/deep/") and "Give --run a folder" in error
    with pytest.raises(SystemExit):
        main([f"--{LONG}", "1"])
    assert len(capsys.readouterr().err) <= LONGEST + 10


def test_weights_that_are_not_a_runs_own_are_named_briefly(tmp_path, digits_root):
    run = make_run(tmp_path / "runs", digits_root)
    file = tmp_path / "exported" / "ema.safetensors"
    file.parent.mkdir()
    newest = load_pretrained(run)
    file.with_name("config.json").write_bytes(Storage(run).read_bytes("config.json"))
    save_file({LONG: torch.zeros(1), **newest.tensors}, file)
    with pytest.raises(ValueError, match="weights are not those of the network") as caught:
        load_pretrained(str(file.parent))
    assert len(str(caught.value)) <= LONGEST and load_file(file).keys() > newest.tensors.keys()


def test_differences_of_options_are_counted_past_the_first():
    before = {f"part.option_{i}": i for i in range(100)}
    text = describe_differences(before, replace_all(before))
    assert text.startswith("part.option_0 (0 there, none here)") and "and 95 more" in text


def replace_all(options):
    return dict.fromkeys(options, "none")
