import gzip
import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers.webdataset_tars import expand_braces, list_members
from data_prep.tars import Member, group_members, read_range


def write_tar(path, members, **options):
    """Members as (name, content), in order; a name may come twice."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


FEW = [(f"{i:03d}.jpg", bytes([i]) * (300 * i)) for i in range(8)]


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_members_lie_where_it_says(tmp_path, format):
    long = "deep/" * 15 + "ü" * 30 + ".png"
    path = write_tar(tmp_path / "a.tar", [*FEW, (long, b"far")], format=format)
    members = list_members(path, "a.tar")
    assert [m.name for m in members] == [name for name, _ in FEW] + [long]
    for member, (_, content) in zip(members, [*FEW, ("", b"far")], strict=True):
        assert read_range(path, member.offset, member.size) == content


def test_folders_and_links_are_no_members(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"x")
    (tmp_path / "in/b.jpg").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", "in")
    assert [m.name for m in list_members(tmp_path / "a.tar", "a")] == ["in/a.jpg"]


def test_every_cut_is_seen(tmp_path):
    """Up to the first block of the closing zeros, whose second block nobody needs."""
    whole = write_tar(tmp_path / "a.tar", FEW[:4]).read_bytes()
    end = sum(512 + -(-len(content) // 512) * 512 for _, content in FEW[:4])
    for length in [*range(0, end + 512, 256), end + 511]:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.tar is (damaged or )?cut short"):
            list_members(tmp_path / "cut.tar", "cut.tar")
    (tmp_path / "cut.tar").write_bytes(whole[: end + 512])
    assert len(list_members(tmp_path / "cut.tar", "cut.tar")) == 4


@pytest.mark.parametrize("member", range(4))
def test_a_damaged_header_is_not_the_end(tmp_path, member):
    path = write_tar(tmp_path / "a.tar", FEW[:4])
    starts = [m.offset - 512 for m in list_members(path, "a.tar")]
    raw = bytearray(path.read_bytes())
    raw[starts[member] + 3] ^= 1
    path.write_bytes(raw)
    message = rf"damaged header at byte {starts[member]:,}" if member else "damaged or cut"
    with pytest.raises(ValueError, match=message):
        list_members(path, "a.tar")


def test_what_follows_the_end_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", FEW)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match="a.tar goes on behind its end.*joined out of several"):
        list_members(path, "a.tar")


def test_compressed_tars_are_refused_by_name(tmp_path):
    path = write_tar(tmp_path / "a.tar", FEW)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a.tar is compressed \(gzip\)"):
        list_members(path, "a.tar")


@given(st.binary(max_size=2000))
def test_no_bytes_are_worse_than_an_error(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / f"{os.getpid()}.tar"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="x is|x has|x goes"):
        list_members(path, "x")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("a{,b}", ["a", "ab"]),
        ("{a,{0..1}}", ["a", "0", "1"]),
        ("{a..c}", ["a", "b", "c"]),
        ("{3..1}", ["3", "2", "1"]),
    ],
)
def test_braces_stand_for_what_a_shell_makes_of_them(word, expected):
    assert expand_braces(word, "--source") == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("a{0..1", "do not close"),
        ("a}0{", "is neither a range"),
        ("{}", "is neither a range"),
        ("x{0}", "is neither a range"),
        ("{0..999999999}", "more than 1,000,000"),
        ("{0..9999}{0..9999}", "more than 1,000,000"),
        ("{0..1" + "0" * 5000 + "}", "more than 1,000,000"),
    ],
)
def test_other_braces_are_refused(word, message):
    with pytest.raises(ValueError, match=f"--source.*{message}"):
        expand_braces(word, "--source")


def test_neighbours_of_one_key_are_a_sample_and_nothing_drops_one_in_silence():
    names = ["a/0.PNG", "a/0.cls", "a/0.txt", "b.x/1.cls", "1.s.cls", "README", ".png", "2."]
    hidden = ["3.cls", "3.__bad__", "3.__key__", "3.__url__", "4.txt", "a/0.cls"]
    members = [Member(name, i, 0) for i, name in enumerate([*names, *hidden])]
    found = list(group_members(members, ("png", "cls"), pytest.fail))
    assert [(key, sorted(parts)) for key, parts in found] == [
        ("a/0", ["cls", "png"]),
        ("b.x/1", ["cls"]),
        ("1", []),
        ("3", ["cls"]),
        ("4", []),
        ("a/0", ["cls"]),
    ]
    assert found[0][1]["png"] == members[0]
    twice = []
    members = [Member(name, i, 0) for i, name in enumerate(["0.cls", "0.CLS", "0.png"])]
    [(_, parts)] = group_members(members, ("png", "cls"), twice.append)
    assert twice == ["0.CLS"] and parts == {"cls": members[0], "png": members[2]}
