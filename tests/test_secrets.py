"""Secrets come from the environment and go nowhere: planted ones are searched for."""

import base64
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import SECRETS
from ray_tools import PASSWORD

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import MlflowTracker

COMMANDS = {
    "cbdm_scale.train": (
        "--data.root",
        "--cluster.storage",
        "--init-from",
        "--eval.extractor-weights",
    ),
    "cbdm_scale.sample": ("--run", "--out", "--track.uri"),
    "cbdm_scale.evaluate": ("--run", "--samples", "--against"),
    "cbdm_scale.export": ("--run", "--data.root"),
    "cbdm_scale.classify": ("--data.root", "--add"),
    "cbdm_scale.preflight": ("--track.uri", "--preset"),
    "data_prep.__main__": ("--source", "--out"),
    "tune.search_tau": ("--cluster.storage",),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_takes_a_password_in_an_option_or_repeats_it(name, capsys):
    main = import_module(name).main
    for option in COMMANDS[name]:
        for url in "s3://key:hunter2@bucket/runs", "https://me:hunter2@host":
            for words in ([option, url], [f"{option}={url}"]):
                assert main(words) == 1
                out, err = capsys.readouterr()
                named = option.removeprefix("--").replace("-", "_")
                assert err.startswith(f"error: {named} (") and "carries a password" in err
                assert "hunter2" not in out + err


def forms(secret: str) -> set[bytes]:
    """A secret as it is, in a URL, and in a header of basic authentication."""
    basic = base64.b64encode(f"trainer:{secret}".encode())
    return {secret.encode(), quote(secret, safe="").encode(), basic}


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        for here, _, names in os.walk(folder):
            yield from (p for n in names if (p := Path(here, n)).is_file())


def holders(words: set[bytes], *folders: Path) -> list[Path]:
    """The files that hold one of the words, in their content or in their name."""
    found = []
    for path in files(*folders):
        text = str(path).encode() + b"\n" + path.read_bytes()
        if any(word in text for word in words):
            found.append(path)
    return found


def test_a_server_that_is_away_is_logged_without_its_password(tmp_path, caplog):
    uri = f"http://trainer:{quote(PASSWORD, safe='')}@127.0.0.1:9"
    tracker = MlflowTracker(Storage(str(tmp_path)), uri, "0" * 32)
    tracker.scalars(48, {"loss/total": 1.0})
    assert tracker.close(1.0) == 1
    assert "127.0.0.1:9) does not answer" in caplog.text
    assert not any(word.decode() in caplog.text for word in forms(PASSWORD))


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_no_secret_reaches_a_file_a_log_or_a_tracker(work, killed, tmp_path):
    """Whatever ran on the shared cluster, and one run through a server with a password."""
    import ray
    from ray.util.state import list_actors, list_jobs, list_workers

    from cbdm_scale.cluster.connect import join

    (tmp_path / "printed.txt").write_text(killed)
    join()
    shown = [list_actors(detail=True), list_jobs(detail=True), list_workers(detail=True)]
    ray.shutdown()
    (tmp_path / "shown.txt").write_text(repr(shown))

    cache = Path(os.environ["CBDM_SCALE_CACHE"])
    everywhere = work, work / "session" / "", cache, tmp_path
    for secret in (*SECRETS.values(), PASSWORD):
        assert not holders(forms(secret), *everywhere), secret
    # What is not secret is found in all of these places: the search can find.
    found = {str(path) for path in holders({b"killed-worker"}, *everywhere)}
    run = "runs/killed-worker/config.json"
    for place in (run, "server/mlflow.db", "printed.txt", "shown.txt"):
        assert any(path.endswith(place) for path in found), place
    assert any("/session/" in path for path in found) and len(shown[0]) > 0
