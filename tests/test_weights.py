"""Published weights: found in a stated order and proven by their sha256, or refused."""

import hashlib
import urllib.error

import pytest
import torch

from cbdm_scale.metrics.weights import Published, find_weights

DATA = b"the published bytes"
FILES = (
    Published("good.pth", "https://example.invalid/good.pth", hashlib.sha256(DATA).hexdigest()),
)
VARIABLE = "CBDM_SCALE_TEST_WEIGHTS"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write(path, data=DATA):
    path.write_bytes(data)
    return str(path)


def find(path="", allow=False):
    return find_weights("net", VARIABLE, FILES, path, allow)


def test_the_option_goes_before_the_variable_and_that_before_torchs_folder(
    hub, tmp_path, monkeypatch
):
    write(hub / "good.pth")
    assert find().path == str(hub / "good.pth")
    monkeypatch.setenv(VARIABLE, write(tmp_path / "b.pth"))
    assert find().path == str(tmp_path / "b.pth")
    assert find(write(tmp_path / "c.pth")).path == str(tmp_path / "c.pth")


def test_an_unknown_file_is_refused_unless_allowed(tmp_path):
    path = write(tmp_path / "my net.pth", b"other bytes")
    message = (
        r"eval.extractor_weights \(.*my net.pth\) is not a published file of extractor net: "
        r"its sha256 is .*needs good.pth \(sha256 .*\): .*--eval.extractor-weights or "
        r"CBDM_SCALE_T.*--eval.allow"
    )
    with pytest.raises(ValueError, match=message):
        find(path)
    assert not find(path, allow=True).known


def test_only_an_unknown_file_is_named_in_the_fingerprint(tmp_path):
    known = find(write(tmp_path / "a.pth")).fingerprint("net", "bilinear")
    assert len(known) == 16 and "a_pth" not in known
    other = find(write(tmp_path / "my net.pth", b"other"), allow=True)
    assert other.fingerprint("net", "bilinear").endswith("-my_net_pth")


def test_the_fingerprint_knows_the_resize_rule_and_not_the_path(tmp_path):
    first, second = find(write(tmp_path / "a.pth")), find(write(tmp_path / "b.pth"))
    assert first.fingerprint("net", "tf1") == second.fingerprint("net", "tf1")
    assert first.fingerprint("net", "tf1") != first.fingerprint("net", "bicubic")


def test_a_missing_file_names_option_and_what_is_needed(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"eval.extractor_weights \(.*none.pth\) cannot be read.*good.pth"
    ):
        find(str(tmp_path / "none.pth"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match=rf"{VARIABLE} \(.*none.pth\) cannot be read"):
        find()


def test_offline_the_error_names_option_variable_file_and_sha256(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    message = (
        rf"good.pth cannot be downloaded to .*no route to host.*good.pth \(sha256 "
        rf"{FILES[0].sha256}\).*--eval.extractor-weights or {VARIABLE}"
    )
    with pytest.raises(ValueError, match=message):
        find()
