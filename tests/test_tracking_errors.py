"""What a tracking server or database answers is told as what it is, by its own words."""

import re
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tracking_tools import begin, make_database

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import check_server, make_client
from cbdm_scale.tracking.errors import explain
from cbdm_scale.tracking.models import fetch_model

DEAD = "http://me:secret@127.0.0.1:9"  # nobody listens on the discard port


def answering(status: int) -> HTTPServer:
    """A server that gives every request the same status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_POST = do_GET

        def log_message(self, *words: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def said(uri: str) -> str:
    with pytest.raises(ValueError) as caught:
        check_server(uri)
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "does", "cure"),
    [
        (401, "refuses the user", "MLFLOW_TRACKING_USERNAME and"),
        (403, "refuses the user", "MLFLOW_TRACKING_TOKEN"),
        (404, "is no MLflow server", "Give the address"),
    ],
)
def test_a_server_that_says_no_is_not_away(status: int, does: str, cure: str) -> None:
    server = answering(status)
    text = said(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert text.startswith(f"track.uri (http://127.0.0.1:{server.server_port}) {does}: ")
    assert cure in text and "Start the server" not in text


def test_the_source_of_an_address_is_named_with_its_own_way_out(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    text = said(DEAD)
    assert text.startswith("track.uri (http://127.0.0.1:9) does not answer: ")
    assert "Start the server, or leave --track.uri out to use sqlite" in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    other = said(DEAD)
    assert other.startswith("MLFLOW_TRACKING_URI (http://127.0.0.1:9) does not answer: ")
    assert "or unset MLFLOW_TRACKING_URI" in other and "secret" not in text + other


def test_what_is_no_database_or_another_mlflows_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database" * 100)
    assert "is no database: " in said(f"sqlite:///{tmp_path}/text.db")
    uri = make_database(tmp_path / "old")
    with sqlite3.connect(tmp_path / "old" / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert re.search(r"is of another MLflow: .*mlflow db upgrade", said(uri))
    text = said(str(tmp_path))
    assert "is a folder of files" in text and "sqlite:////folder/mlflow.db" in text


def test_a_deleted_experiment_is_restored_or_another_chosen(tmp_path: Path) -> None:
    uri = make_database(tmp_path)
    client = make_client(uri)
    client.delete_experiment(client.create_experiment("cbdm_scale"))
    with pytest.raises(ValueError, match="has deleted the experiment.*mlflow experiments rest"):
        begin(uri, Storage(str(tmp_path / "run")))
    assert not (tmp_path / "run" / "mlflow_run_id").exists()


def test_what_nobody_foresaw_keeps_its_words_and_gets_no_cure() -> None:
    text = explain("http://host:5000", RuntimeError("the moon is full\nand round"))
    assert text == "track.uri (http://host:5000) answers: the moon is full."


def test_a_model_is_not_looked_for_in_a_database_that_is_not_there(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ValueError, match=r"no such database.*--cluster.storage.*--track.uri"):
        fetch_model("models:/mine@newest", uri)
    assert not (tmp_path / "mlflow.db").exists()
