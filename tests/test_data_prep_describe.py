import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shard_tools import copy_digits

from data_prep.__main__ import main
from data_prep.checking.picture import choose_classes, sort_classes
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.shards import write_dataset


def test_table_names_counts_groups_totals_and_sizes(digits_root, tmp_path, capsys):
    digits_root = shutil.copytree(digits_root, tmp_path / "root")
    assert main(["describe", str(digits_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["class", "train", "eval", "group"]
    assert lines[6].split() == ["3", "3", "37", "183", "medium"]
    assert lines[13].split() == ["all", "428", "1,797"]
    assert "few        3 classes         8 training images (1.9%)" in lines
    assert "imbalance 174 : 2" in lines
    assert any(line.startswith("eval       2 shards") for line in lines)
    with Image.open(digits_root / "digits_lt.png") as picture:
        assert picture.width == 1300 and len(picture.convert("RGB").getcolors(1 << 20)) > 100


def test_picture_goes_where_it_is_told_and_never_into_the_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_digits(tmp_path / "root")
    before = sorted(tmp_path.rglob("root/**/*"))
    assert main(["describe", str(tmp_path / "root/digits_lt"), "--out", "x/y.svg"]) == 0
    assert (tmp_path / "x/y.svg").read_text().startswith("<?xml")
    assert sorted(tmp_path.rglob("root/**/*")) == before


def test_an_index_in_parts_shows_the_same_images(parts_made, tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    for kind in ("one", "parts"):
        path = tmp_path / f"{kind}.png"
        assert main(["describe", str(parts_made / kind), "--out", str(path)]) == 0
    assert (tmp_path / "parts.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_odd_class_names_and_bad_images_do_not_stop_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("$x$", "鳥", "a" * 500, "\N{GRINNING FACE}", "_^{", *"56789")
    source = replace(read_digits_lt(), class_names=names)
    write_dataset(source, tmp_path / "digits_lt", samples_per_shard=1000, seed=0, log=str)
    tar = tmp_path / "digits_lt/train/000000.tar"
    raw = bytearray(tar.read_bytes())
    raw[100_000:200_000] = bytes(100_000)
    tar.write_bytes(raw)
    assert main(["describe", str(tmp_path)]) == 0


def test_one_picture_of_several_data_sets_is_refused(tmp_path, capsys):
    for name in ("a", "b"):
        source = replace(read_digits_lt(), name=name)
        write_dataset(source, tmp_path / name, samples_per_shard=2000, seed=0, log=str)
    assert main(["describe", str(tmp_path), "--out", "x.png"]) == 1
    assert f"Name one of them: {tmp_path}/a" in capsys.readouterr().err


def test_the_picture_lies_beside_the_data_set_and_not_where_the_command_was_typed(
    digits_root, tmp_path, monkeypatch, capsys
):
    root = shutil.copytree(digits_root, tmp_path / "root")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["describe", f"{root}/digits_lt"]) == 0
    assert f"picture {root}/digits_lt.png" in capsys.readouterr().out
    assert sorted(path.name for path in root.iterdir()) == ["digits_lt", "digits_lt.png"]
    assert list((tmp_path / "here").iterdir()) == []
    (root / "digits_lt.png").unlink()
    (root / "digits_lt.png").mkdir()
    assert main(["describe", str(root)]) == 1
    assert "digits_lt.png cannot be written (" in (said := capsys.readouterr().err)
    assert "--out" in said


def test_unknown_kind_of_picture_is_told(digits_root, tmp_path, capsys):
    assert main(["describe", digits_root, "--out", str(tmp_path / "x.doc")]) == 1
    assert "x.doc): Format 'doc' is not supported" in capsys.readouterr().err


@pytest.mark.parametrize("k", [1, 2, 10, 12, 13, 1000])
def test_head_middle_and_tail_never_overlap(k):
    counts = tuple(np.random.default_rng(k).integers(1, 100, k).tolist())
    order = sort_classes(counts)
    assert sorted(order.tolist()) == list(range(k))
    bands = choose_classes(order, 4)
    chosen = [c for _, classes in bands for c in classes]
    assert len(chosen) == len(set(chosen)) == min(k, 12)
    sizes = [counts[c] for c in chosen]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(counts) and sizes[-1] == min(counts)
