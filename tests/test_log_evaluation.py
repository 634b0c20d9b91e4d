"""Why results did not reach MLflow is said, and nothing is made up for them."""

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.log_evaluation import log_results, run_id_of


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    run = Storage(str(tmp_path / "run"))
    for uri in ("", f"sqlite:///{tmp_path}/mlflow.db"):
        reason = log_results(
            run, uri, 48, {"eval/guidance_1/fid": 1.0}, {"a.json": b"{}"}, "evaluation"
        )
        assert f"(sqlite:///{tmp_path}/mlflow.db): there is no such database" in reason
        assert "--track.uri" in reason
    assert not (tmp_path / "mlflow.db").exists()


def test_a_password_is_not_said(tmp_path):
    run = Storage(str(tmp_path / "run"))
    reason = log_results(run, "http://me:secret@127.0.0.1:9", 48, {"a": 1.0}, {}, "evaluation")
    assert "track.uri (http://127.0.0.1:9) answers: " in reason and "secret" not in reason


def test_a_folder_without_a_run_has_no_id(tmp_path):
    run = Storage(str(tmp_path))
    assert run_id_of(run) == ""
    run.write_bytes("mlflow_run_id", b"abc\n")
    assert run_id_of(run) == "abc"
