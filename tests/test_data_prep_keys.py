"""Keys out of any names: unique, without dots, the same every time."""

import io
import re

import webdataset
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers.keys import LONGEST, make_keys

HOSTILE = [
    "a.b.c.jpg",
    "../../etc/passwd",
    "/absolute/name.png",
    "two words.JPEG",
    "Zoë/Ärger.png",
    "猫/1.jpg",
    "犬/1.jpg",
    ".hidden",
    "..",
    "",
    "line\nbreak\0null.jpg",
    "x" * 500 + ".jpg",
    "x" * 500 + ".png",
    "x" * 499 + "y.jpg",
    "A.jpg",
    "a.png",
    "back\\slash.jpg",
]


def check(keys, names):
    assert len(keys) == len(names)
    assert len({key.lower() for key in keys}) == len(keys)  # also where case is not seen
    assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{1,{LONGEST}}}", key) for key in keys)
    assert not any(key.startswith("-") for key in keys)


def test_hostile_names_give_unique_plain_keys():
    check(make_keys(HOSTILE), HOSTILE)


@given(st.lists(st.text(max_size=200), max_size=30))
def test_any_names_give_unique_plain_keys(names):
    keys = make_keys(names)
    check(keys, names)
    assert keys == make_keys(names)


@given(st.lists(st.sampled_from(["a", "a-1", "a.1", "a-1-1", "A", "a-2"]), max_size=20))
def test_a_numbered_name_never_meets_another(names):
    check(make_keys(names), names)


def test_ordinary_names_stay_recognisable():
    names = ["n01440764/n01440764_190.JPEG", "000051.jpg", "Zoë Müller.png", "v1.2/a.jpg"]
    assert make_keys(names) == ["n01440764-n01440764_190", "000051", "Zoe-Muller", "v1-2-a"]


def test_the_same_name_twice_is_numbered_in_order():
    assert make_keys(["a.jpg", "b.jpg", "a.jpg", "a.png"]) == ["a", "b", "a-1", "a-2"]


def test_many_equal_names_take_no_quadratic_time():
    keys = make_keys(["same.jpg"] * 50_000)
    assert len(set(keys)) == 50_000 and keys[-1] == "same-49999"


def test_webdataset_reads_every_key_back(tmp_path):
    keys, stream = make_keys(HOSTILE), io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False) as tar:
        for key in keys:
            tar.write({"__key__": key, "cls": b"0"})
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    read = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in read] == keys
