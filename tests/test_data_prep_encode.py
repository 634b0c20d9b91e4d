import io
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from shard_tools import contents, make_digits

from cbdm_scale.data.index import open_index
from cbdm_scale.data.shards import ShardReader, decode
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.encode import MADE_BY_A_MODEL, Encoding, Format


def photo(channels):
    """Noise, which no lossy format survives, (16, 16, C)."""
    return np.random.default_rng(0).integers(0, 256, (16, 16, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless_formats_give_the_pixels_back(name, channels):
    pixels = photo(channels)
    stored = Encoding(format=name).encode(pixels)
    assert np.array_equal(decode(stored, channels, 16), pixels.transpose(2, 0, 1))


def test_quality_of_jpeg_is_what_was_asked_for():
    pixels = photo(3)
    found = {}
    for quality in (10, 95):
        stored = Encoding(format="jpeg", quality=quality).encode(pixels)
        image = Image.open(io.BytesIO(stored))
        assert image.format == "JPEG" and image.layer[1][1:3] == (1, 1)  # full colour
        found[quality] = np.abs(np.asarray(image).astype(int) - pixels).mean()
    assert found[95] < 4 < found[10]
    assert Encoding(format="jpeg").encode(pixels) == stored


@pytest.mark.parametrize("name", get_args(Format))
def test_every_format_is_read_back_from_its_shards(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    for out in ("a", "b"):
        manifest = make_digits(tmp_path / out, format=name, samples_per_shard=900)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert ("JPEG of quality 95" in manifest.source) == (name == "jpeg")
    index = open_index(str(tmp_path / "a"), "digits_lt", "eval")
    image = ShardReader(str(tmp_path / "a"), "digits_lt", index).load(7)
    row = int(index.key(7).removeprefix("digits-"))
    off = np.abs(image[0].astype(int) - read_digits_lt().splits["eval"].image(row)[..., 0])
    assert off.max() <= (40 if name == "jpeg" else 0)


@pytest.mark.parametrize("name", get_args(Format))
def test_the_mark_of_a_generated_image_is_in_its_file_and_costs_no_pixel(name):
    encoding, pixels = Encoding(format=name), photo(3)
    plain, marked = encoding.encode(pixels), encoding.encode(pixels, generated=True)
    assert np.array_equal(decode(plain, 3, 16), decode(marked, 3, 16))
    with Image.open(io.BytesIO(marked)) as image:
        image.load()
        packet = image.info["xmp"].decode()
    tree = ElementTree.fromstring(packet[packet.index("<x:xmpmeta") : packet.rindex("<?")])
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    [found] = [node.get(iptc) for node in tree.iter() if node.get(iptc)]
    assert found == MADE_BY_A_MODEL and found.endswith("/trainedAlgorithmicMedia")
    with Image.open(io.BytesIO(plain)) as image:
        image.load()
        assert "xmp" not in image.info
