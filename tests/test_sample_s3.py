"""Run and set on a real S3 endpoint."""

from pathlib import Path

import pytest
from s3_tools import ACCOUNT, s3_server, upload
from sampling_tools import make_run, only_set

from cbdm_scale.sample import main
from cbdm_scale.storage.folder import Storage


@pytest.fixture(scope="module")
def server():
    with s3_server() as there, pytest.MonkeyPatch.context() as patch:
        host, port = there
        for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        yield there


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "shards"])
def test_a_run_on_s3_gets_its_set_beside_it(server, tmp_path: Path, digits_root, form) -> None:
    local = make_run(tmp_path / "runs", digits_root)
    run = f"s3://{upload(server, tmp_path / 'runs')}/shards/noise"
    words = ["--format", form, "--cluster.workers", "0"]
    assert main(["--run", run, *words]) == 0
    assert main(["--run", local, *words]) == 0
    there, here = only_set(f"{run}/samples"), only_set(f"{local}/samples")
    files = [f for f in here.local_path().rglob("*") if f.is_file()]
    for file in files:
        name = file.relative_to(here.local_path()).as_posix()
        assert there.read_bytes(name) == file.read_bytes(), name
    assert Storage(there.path("chunks")).list() == Storage(here.path("chunks")).list()
    assert main(["--run", run, *words]) == 0  # once more, nothing is made
