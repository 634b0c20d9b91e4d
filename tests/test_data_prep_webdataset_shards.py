import io
import json
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image
from process_tools import sent
from test_data_prep_webdataset_tars import write_tar

from cbdm_scale.data.cache import cache_folder
from data_prep.options import Options
from data_prep.readers.webdataset_shards import read_webdataset
from data_prep.source import BadImage


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (6, 5), colour).save(file, "PNG")
    return file.getvalue()


def sample(key, label, red=0, **more):
    """Members of a sample; ``more`` are further ones or others, None leaves one out."""
    parts = {"png": png((red, 0, 0)), "cls": str(label).encode(), "txt": b"a caption"} | more
    return [(f"{key}.{suffix}", data) for suffix, data in parts.items() if data is not None]


def write(path, *samples):
    return write_tar(path, [member for members in samples for member in members])


def read(source, **options):
    given = {"resolution": 4, "out": str(source) + ".out", "source": str(source)} | options
    return read_webdataset("mine", Options(**given))


def test_samples_of_all_tars_are_found_with_labels_and_images(tmp_path):
    write(tmp_path / "00000.tar", sample("a/0", 1, 10), sample("a/1", " 0\n", 20))
    write(tmp_path / "00001.tar", sample("a/0", 2, 30))
    source = read(tmp_path / "{00000..00001}.tar")
    train = sent(source.splits["train"])
    assert source.class_names == ("0", "1", "2")
    assert train.labels.tolist() == [1, 0, 2]
    assert train.keys == ["00000-a-0", "00000-a-1", "00001-a-0"]
    assert [train.image(i)[0, 0, 0] for i in range(3)] == [10, 20, 30]
    assert source.splits["eval"].keys == train.keys
    assert (source.notes, source.image_size, source.channels) == ((), 4, 3)
    assert str(tmp_path) not in source.made


@pytest.mark.parametrize("source", [".", "*.tar", "{0..1}.tar"])
def test_a_folder_and_a_pattern_are_its_tars_in_order(tmp_path, source):
    for i in (1, 0):
        write(tmp_path / f"{i}.tar", sample("x", i))
    (tmp_path / "0.json").touch()
    assert read(tmp_path / source).splits["train"].labels.tolist() == [0, 1]


def test_a_folder_of_tars_of_two_splits_is_refused(tmp_path):
    write(tmp_path / "set-train-000.tar", sample("x", 0), sample("y", 1))
    write(tmp_path / "set-validation-000.tar", sample("x", 0))
    with pytest.raises(ValueError, match=r"of several splits .*: train, val. Name those to"):
        read(tmp_path)
    assert len(read(tmp_path / "*train*.tar").splits["train"].labels) == 2
    (tmp_path / "set-validation-000.tar").rename(tmp_path / "set-retrained-000.tar")
    assert len(read(tmp_path).splits["train"].labels) == 3


def test_members_of_a_sample_need_not_stand_together(tmp_path):
    members = sorted(sample("0", 1) + sample("1", 0), key=lambda m: m[0][::-1])
    write_tar(tmp_path / "a.tar", members)
    assert sorted(read(tmp_path / "a.tar").splits["train"].labels) == [0, 1]


def test_hostile_keys_are_keys_like_others(tmp_path):
    keys = ["../../x", "/etc/y", "a b", "ü\n", "d.o/t.s.t"]
    samples = [sample(key, i % 2) for i, key in enumerate(keys[:-1])]
    samples.append([("d.o/t.PNG", png("red")), ("d.o/t.cls", b"0"), ("d.o/t.s.t.png", b"mask")])
    write(tmp_path / "a.tar", *samples, [(".hidden", b""), ("README", b"")])
    source = read(tmp_path / "a.tar")
    keys = source.splits["train"].keys
    assert len(set(keys)) == 5 and not any(set("./\n ") & set(key) for key in keys)
    assert source.notes == (
        "ignored 2 members without a key or a suffix",
        "ignored 1 members that only go with a sample, such as 'd.o/t.s.t.png'",
    )


def test_a_key_may_have_dots(tmp_path):
    """Beside a key that ends where it has its dot too; a part of that one is no sample."""
    keys = ["IMG.2024.05", "a", "a.b", "c.d"]
    samples = [sample(key, i % 2, 10 * i) for i, key in enumerate(keys)]
    write(tmp_path / "a.tar", *samples, [("a.mask.png", png("red")), ("a.b.jpg.txt", b"")])
    source = read(tmp_path / "a.tar")
    split = source.splits["train"]
    assert split.keys == ["a-IMG-2024-05", "a-a", "a-a-b", "a-c-d"]
    assert [split.image(i)[0, 0, 0] for i in range(4)] == [0, 10, 20, 30]
    assert split.labels.tolist() == [0, 1, 0, 1]
    (note,) = source.notes
    assert note == "ignored 2 members that only go with a sample, such as 'a.mask.png'"
    write(tmp_path / "b.tar", *samples, sample("e.f", 0, cls=None))
    with pytest.raises(ValueError, match="1 images or labels .*'e.f' of .*: it has no .cls"):
        read(tmp_path / "b.tar")


def test_labels_may_come_from_a_field_of_json(tmp_path):
    records = [{"wnid": w, "n": i} for i, w in enumerate(("n02", "n01", "n02"))]
    samples = [
        sample(i, 9, cls=None, json=json.dumps(record).encode())
        for i, record in enumerate(records)
    ]
    write(tmp_path / "a.tar", *samples)
    named = read(tmp_path / "a.tar", label_from="json:wnid")
    assert named.class_names == ("n01", "n02")
    assert named.splits["train"].labels.tolist() == [1, 0, 1]
    assert read(tmp_path / "a.tar", label_from="json:n").splits["train"].labels.tolist() == [
        0,
        1,
        2,
    ]


def labelled(path, labels):
    """A tar of samples with these labels in .json, which their keys say too."""
    samples = []
    for label in labels:
        number = int(label.strip(b'"'))
        samples.append(sample(f"is-{number}", 0, cls=None, json=b'{"y": %s}' % label))
    return write(path, *samples)


@pytest.mark.parametrize("quoted", ["train", "eval", "some"])
def test_integers_and_strings_of_json_are_the_same_names(tmp_path, quoted):
    plain = [b"%d" % n for n in (10, 2, 0, 1, 9, 8, 7, 6, 5, 4, 3)]
    text = [b'"%s"' % n for n in plain]
    parts = {
        "train": (text, plain),
        "eval": (plain, text),
        "some": (plain[:3] + text[3:], text),
    }
    tars = [labelled(tmp_path / f"{i}.tar", part) for i, part in enumerate(parts[quoted])]
    source = read(tars[0], eval_source=str(tars[1]), label_from="json:y")
    assert source.class_names == tuple(map(str, range(11)))
    for split in source.splits.values():
        assert [int(key.rpartition("-")[2]) for key in split.keys] == split.labels.tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"png": None}, "it has no image"),
        ({"jpg": b"x"}, r"it has several images \(jpg, png\)"),
        ({"cls": None}, "it has no .cls"),
        ({"cls": b"dog"}, "its .cls holds b'dog', which is no integer"),
    ],
)
def test_a_sample_that_is_not_whole_is_named_and_counted(tmp_path, change, reason):
    write(tmp_path / "a.tar", sample("0", 0), sample("1", 1), sample("bad", 0, **change))
    with pytest.raises(ValueError, match=rf"1 images or labels.*'bad' of .*a.tar: {reason}"):
        read(tmp_path / "a.tar", out=str(tmp_path))
    assert "'bad' of" in (tmp_path / "mine.missing.txt").read_text()
    source = read(tmp_path / "a.tar", out=str(tmp_path), allow_missing=3)
    assert len(source.splits["train"].labels) == 2 and source.allow_missing == 2
    assert "left out 1 samples without image or label" in source.notes[0]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_class_that_lost_all_its_samples_is_named(tmp_path, lost):
    """The last one too, which would otherwise be no class at all."""
    samples = [sample(i, i, **({"png": None} if i == lost else {})) for i in range(3)]
    write(tmp_path / "a.tar", *samples)
    with pytest.raises(ValueError, match=f"1 of 3 classes have no sample .*: {lost}. Complete"):
        read(tmp_path / "a.tar", out=str(tmp_path), allow_missing=1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{", "its .json is none"),
        (b"[1]", "field label of its .json is None"),
        (b'{"label": true}', "is True, neither"),
        (b'{"label": 1.5}', "is 1.5, neither"),
        (b"[" * 100_000, "its .json is none"),
    ],
)
def test_json_without_the_label_is_counted(tmp_path, record, reason):
    good = [sample(i, 0, json=b'{"label": %d}' % i) for i in range(2)]
    write(tmp_path / "a.tar", *good, sample("bad", 0, json=record))
    with pytest.raises(ValueError, match=f"'bad' of .*{reason}"):
        read(tmp_path / "a.tar", label_from="json:label")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, -1], None, r"--source: 'a/1' has label -1, outside 0\.\."),
        ([0, 2], 2, r"'a/1' has label 2, outside 0\.\.1 \(--classes\)"),
        ([0, 1], 3, r"1 of the labels 0\.\.2 have no image, the first is 2"),
        ([0, 10**15], None, "have no image, the first is 1"),
        ([0, 0], None, "has 1 class; at least 2"),
    ],
)
def test_labels_outside_the_classes_are_refused(tmp_path, labels, classes, message):
    write(tmp_path / "a.tar", *[sample(i, label) for i, label in enumerate(labels)])
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.tar", classes=classes)


def test_a_member_twice_is_refused(tmp_path):
    write(tmp_path / "a.tar", sample("0", 0), sample("1", 1), sample("0", 0))
    with pytest.raises(ValueError, match="a.tar holds '0.png' twice"):
        read(tmp_path / "a.tar")


def test_names_and_numbers_as_labels_do_not_mix(tmp_path):
    records = [b'{"label": 0}', b'{"label": "dog"}']
    write(tmp_path / "a.tar", *[sample(i, 0, json=r) for i, r in enumerate(records)])
    with pytest.raises(ValueError, match="some labels are integers, some are names.*'dog'"):
        read(tmp_path / "a.tar", label_from="json:label")


def test_eval_source_must_have_the_same_classes(tmp_path):
    write(tmp_path / "a.tar", *[sample(i, i) for i in range(3)])
    write(tmp_path / "b.tar", *[sample(i, i % 2) for i in range(4)])
    write(tmp_path / "c.tar", *[sample(i, i % 3) for i in range(6)])
    with pytest.raises(ValueError, match=r"--eval-source: .* lacks '2'"):
        read(tmp_path / "a.tar", eval_source=str(tmp_path / "b.tar"))
    source = read(tmp_path / "a.tar", eval_source=str(tmp_path / "c.tar"))
    assert np.bincount(source.splits["eval"].labels).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("gone-{0..2}.tar", {}, "3 tars are not there, the first is .*gone-0.tar"),
        ("*.tar", {}, "1 tars are not there"),
        (".", {}, "holds no .tar"),
        ("{a,a}.txt", {}, "names .*a.txt twice"),
        ("a.txt", {"label_from": "txt"}, r"--label-from \(txt\) must be cls, or json:"),
        ("a.txt", {}, "a.txt is damaged or cut short"),
        ("a.txt", {"resolution": 0}, "--resolution must be from 1 to"),
    ],
)
def test_sources_that_are_none_are_refused(tmp_path, source, options, message):
    (tmp_path / "a.txt").write_text("no tar")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / source, **options)


def test_an_image_that_does_not_decode_names_tar_and_place(tmp_path):
    write(tmp_path / "a.tar", sample("0", 0), sample("1", 1, png=b"no image"))
    with pytest.raises(BadImage, match=r"a.tar at byte \d+: not an image"):
        read(tmp_path / "a.tar").splits["train"].image(1)


@pytest.fixture
def web(tmp_path):
    """The folder of a web server that serves whole files only, and its URL."""
    folder = tmp_path / "web"
    folder.mkdir()
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        port = server.stdout.readline().split("port ")[1].split()[0]
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield folder, url
        server.terminate()


def test_tars_of_a_web_server_are_fetched_once_and_go_when_done(web, tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    folder, url = web
    for i in range(2):
        write(folder / f"0{i}.tar", sample("0", 0, 10 * i), sample("1", 1, 10 * i + 5))
    source = read(f"{url}/{{00..01}}.tar", out=str(tmp_path))
    for tar in folder.iterdir():
        tar.unlink()
    image = sent(source.splits["train"].image)
    assert [image(i)[0, 0, 0] for i in range(4)] == [0, 5, 10, 15]
    assert len(list(cache_folder().glob("*.tar"))) == 2
    source.done()
    assert list(cache_folder().iterdir()) == []
    with pytest.raises(ValueError, match=f"{url}/00.tar is not there"):
        read(f"{url}/00.tar", out=str(tmp_path))
