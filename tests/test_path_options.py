"""Options that are paths are absolute before they leave the driver, and last."""

from dataclasses import replace
from importlib import import_module

import pytest

from cbdm_scale import train
from cbdm_scale.__main__ import COMMANDS
from cbdm_scale.balancing.options import BalanceOptions
from cbdm_scale.cli.command import options_of
from cbdm_scale.config.presets import preset
from cbdm_scale.config.run_options import resolve
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.storage.checks import field_types
from cbdm_scale.storage.path_options import JOB_COPY, PathOption, absolute_paths, absolute_uri
from cbdm_scale.tracking.runs import default_tracking_uri
from data_prep.__main__ import main as data_command
from data_prep.options import DescribeOptions
from tune.comparison.options import CompareOptions

READ_HERE = {
    "name",  # of a folder in cluster.storage
    "config",  # by the driver
    *("source", "train_list", "eval_list", "eval_source"),  # workers go to the driver's folder
}
WORDS = "path", "folder", "file", "url", "database", "weights of"
WORDS += "a run's folder", "a worse network", "fine-tune", "generated images besides"
WORDS += "what is compared", "root", "the picture"


def placed(option) -> bool:
    marks = getattr(field_types(option.owner)[option.field], "__metadata__", ())
    return any(isinstance(mark, PathOption) for mark in marks)


def test_every_option_that_names_a_place_says_so_in_its_type():
    modules = [import_module(m) for m in dict.fromkeys(m for m, _ in COMMANDS.values() if m)]
    every = [getattr(m, "COMMANDS", None) or [m.COMMAND] for m in modules]
    commands = [command for some in every for command in some]
    assert {command.name for command in commands} == COMMANDS.keys() - {"completion"}
    found = set()
    for command in commands:
        for option in options_of(command.parts).values():
            text, is_text = option.help.lower(), option.kind in (str, tuple[str, ...])
            if is_text and placed(option):
                found.add(option.field)
            elif is_text and option.field not in READ_HERE:
                about = [word for word in WORDS if text.startswith(word)]
                assert not about, f"{command.name} {option.flag}: {option.help}"
    assert found == {
        *("root", "cache", "storage", "uri", "extractor", "extractor_weights"),
        *("samples", "against", "out", "features", "run", "guide", "init_from", "add"),
        *("protocol", "classifiers", "where"),
    }


def test_paths_are_absolute_and_everything_else_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = preset("digits_lt")
    given = replace(
        base,
        data=replace(base.data, root="shards", cache="cache"),
        eval=replace(base.eval, extractor="classifier:mine.safetensors", extractor_weights="w"),
        cluster=replace(base.cluster, storage="runs"),
        track=replace(base.track, uri="sqlite:///mlflow.db"),
    )
    config = resolve(given)
    assert config.data.root == f"{tmp_path}/shards" and config.data.cache == f"{tmp_path}/cache"
    assert config.cluster.storage == f"{tmp_path}/runs"
    assert config.track.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert config.eval.extractor == f"classifier:{tmp_path}/mine.safetensors"
    assert config.eval.extractor_weights == f"{tmp_path}/w"
    assert resolve(config) == config
    for name in ("classifier", "inception", "none"):
        assert absolute_paths(EvalConfig(extractor=name)).extractor == name
    for uri in ("http://host:5000", "sqlite:////db", "sqlite:///:memory:", ""):
        assert absolute_uri("track.uri", uri) == uri
    assert absolute_paths(EvaluateOptions(samples="a.npz")).samples == f"{tmp_path}/a.npz"
    given = replace(preset("digits_lt"), init_from="old/run", init_sha256="")
    assert resolve(given).init_from == f"{tmp_path}/old/run"
    balance = absolute_paths(BalanceOptions(run="r", guide="r/g", classifiers=("a", "/b")))
    assert (balance.run, balance.guide) == (f"{tmp_path}/r", f"{tmp_path}/r/g")
    assert balance.classifiers == (f"{tmp_path}/a", "/b")
    for run in ("models:/NAME@best", "runs:/ID/PATH", "s3://bucket/run", ""):
        assert absolute_paths(EvaluateOptions(run=run, guide="24000")).run == run
    assert absolute_paths(EvaluateOptions(guide="24000")).guide == "24000"
    assert absolute_paths(CompareOptions(protocol="digits")).protocol == "digits"
    assert absolute_paths(CompareOptions(protocol="a/b.yaml")).protocol.startswith("/")


def test_mlflows_own_default_is_the_database_of_the_drivers_folder(tmp_path, monkeypatch):
    """Workers have another one, where not one metric arrived."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert default_tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data.root": "shards"}, r"data.root \(shards\): .* --data.root /SHARED/shards"),
        ({"cluster.storage": "a/runs"}, r"--cluster.storage /SHARED/a/runs"),
        ({"track.uri": "sqlite:///a.db"}, r"--track.uri sqlite:////SHARED/a.db"),
        (
            {"data.root": "shards", "cluster.storage": "runs", "track.uri": "sqlite:///a.db"},
            r"data.root \(shards\), cluster.storage \(runs\), track.uri \(sqlite:///a.db\): "
            ".*: --data.root /SHARED/shards --cluster.storage /SHARED/runs --track.uri sqlite:",
        ),
    ],
)
def test_a_job_refuses_to_keep_anything_in_its_copy_of_a_folder(
    tmp_path, monkeypatch, given, told
):
    copy = tmp_path / "runtime_resources" / JOB_COPY / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    words = {"--data.root": "/shards", "--cluster.storage": "/runs"}
    words |= {f"--{name}": value for name, value in given.items()}
    parsed = train.parse([word for pair in words.items() for word in pair])
    with pytest.raises(ValueError, match=told):
        resolve(parsed.config)
    shipped = absolute_paths(EvalConfig(extractor="classifier:mine.safetensors"))
    assert shipped.extractor == f"classifier:{copy}/mine.safetensors", "a file of the job's own"


def test_a_job_refuses_a_run_whose_images_it_would_lose(tmp_path, monkeypatch, capsys):
    """They went into Ray's copy of the run, and were gone with it."""
    copy = tmp_path / JOB_COPY / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    for command in ("sample", "evaluate", "export", "balance"):
        words = ["--run", "my runs/x", "--out", "/out"]
        assert import_module(COMMANDS[command][0]).main(words) == 1
        told = capsys.readouterr().err
        assert "run (my runs/x): relative paths lie in this job's copy" in told, command
        assert told.endswith(": --run '/SHARED/my runs/x'\n"), told
    assert data_command(["describe", "/data/x", "--out", "x.png"]) == 1
    assert "out (x.png): relative paths" in capsys.readouterr().err
    assert absolute_paths(DescribeOptions(where="x")).where == f"{copy}/x", "it is only read"
    (copy / "theirs.pt").write_bytes(b"")
    own = absolute_paths(EvaluateOptions(run="theirs.pt"))
    assert own.run == f"{copy}/theirs.pt", "a file that came with the job"
    (copy / "mlflow.db").write_bytes(b"")
    with pytest.raises(ValueError, match="sqlite:////SHARED/mlflow.db"):
        absolute_uri("track.uri", "sqlite:///mlflow.db")


def test_a_job_refuses_the_database_of_its_environment_with_the_options(tmp_path, monkeypatch):
    """At once, where no option names another; a server's address may hold a password."""
    copy = tmp_path / JOB_COPY / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    instead = "MLFLOW_TRACKING_URI=sqlite:////SHARED/mlflow.db"
    config = train.parse(["--data.root", "shards", "--cluster.storage", "/runs"]).config
    told = r"data.root \(shards\), MLFLOW_TRACKING_URI \(sqlite:///mlflow.db\): .*"
    with pytest.raises(ValueError, match=f"{told}--data.root /SHARED/shards {instead}$"):
        resolve(config)
    with pytest.raises(ValueError, match=instead):
        default_tracking_uri(None)
    good = replace(config, data=replace(config.data, root="/shards"))
    given = replace(good, track=replace(good.track, uri="http://host:5000"))
    assert resolve(given).track.uri == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    assert resolve(good).track.uri == ""
