"""Files as they come: every odd one is either the image a viewer shows or a reason why not."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_tools import encoded, png_header, with_chunk
from PIL import Image
from process_tools import sent

from data_prep.options import Options
from data_prep.readers.images import ImageFiles, load_image, square_around
from data_prep.source import BadImage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
JPEG = {"quality": 100, "subsampling": 0}


def halves(left, right, size=(8, 8), mode="RGB"):
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def corners(data, resolution=8, **options):
    """The colours of the four corners, rounded to a tenth of the range."""
    pixels = load_image(data, resolution=resolution, **options)
    assert pixels.shape[:2] == (resolution, resolution) and pixels.dtype == np.uint8
    near = [pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]]
    return [tuple(int(round(v / 25.5)) for v in colour) for colour in near]


def tenths(*colours):
    return [tuple(round(v / 25.5) for v in colour) for colour in colours]


# What ADM does, from its paper's description, in loops of numpy.


def naive_crop(pixels, resolution):
    """(H, W, C) whose short side is 2^k x resolution: only the halving is at work."""
    pixels = pixels.astype(int)
    while min(pixels.shape[:2]) >= 2 * resolution:
        h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = (pixels[:, 0 : 2 * w : 2] + pixels[:, 1 : 2 * w : 2] + 1) // 2
        pixels = (pixels[0 : 2 * h : 2] + pixels[1 : 2 * h : 2] + 1) // 2
    top, left = (pixels.shape[0] - resolution) // 2, (pixels.shape[1] - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution]


def test_a_power_of_two_is_halved_by_a_box_filter_and_cut_in_the_middle():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    got = load_image(encoded(Image.fromarray(pixels)), resolution=16)
    assert (got == naive_crop(pixels, 16)).all()


def test_an_image_of_the_resolution_is_left_as_it_is():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (load_image(encoded(Image.fromarray(pixels)), resolution=32) == pixels).all()


def test_other_sizes_go_through_bicubic_with_antialiasing():
    """A checkerboard of single pixels becomes grey, not another checkerboard."""
    board = (np.indices((30, 30)).sum(0) % 2 * 255).astype(np.uint8)
    got = load_image(encoded(Image.fromarray(board)), resolution=16, channels=1)
    assert np.abs(got[4:-4, 4:-4].astype(int) - 127).max() < 40


def test_smaller_images_are_enlarged():
    assert corners(encoded(halves(RED, BLUE, (4, 4))), 16) == tenths(RED, BLUE, RED, BLUE)


def test_the_long_side_is_cut_evenly():
    image = Image.new("RGB", (24, 8), GREEN)
    image.paste(RED, (8, 0, 16, 8))
    assert corners(encoded(image)) == tenths(RED, RED, RED, RED)


# Modes.


def test_grey_becomes_three_equal_channels_or_stays_one():
    data = encoded(halves(0, 255, mode="L"))
    assert corners(data) == tenths((0,) * 3, WHITE, (0,) * 3, WHITE)
    assert load_image(data, resolution=8, channels=1).shape == (8, 8, 1)
    one_bit = encoded(halves(0, 1, mode="1"))
    assert corners(one_bit) == tenths((0,) * 3, WHITE, (0,) * 3, WHITE)


def test_colour_becomes_grey_by_luma():
    grey = load_image(encoded(Image.new("RGB", (8, 8), GREEN)), resolution=8, channels=1)
    assert grey[0, 0, 0] == round(0.587 * 255)


def test_a_palette_is_looked_up_before_resizing():
    image = halves(RED, BLUE, (40, 40)).quantize(4)
    assert corners(encoded(image)) == tenths(RED, BLUE, RED, BLUE)


@pytest.mark.parametrize("transparency", [0, bytes([0])])
def test_a_transparent_colour_of_a_palette_lies_on_white(transparency):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (4, 0, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = corners(encoded(image, transparency=transparency))
    assert found == tenths(WHITE, BLUE, WHITE, BLUE)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_lies_on_white_and_hidden_colours_stay_hidden(form):
    image = halves((*RED, 0), (*BLUE, 255), mode="RGBA")
    options = {"lossless": True} if form == "WEBP" else {}
    assert corners(encoded(image, form, **options)) == tenths(WHITE, BLUE, WHITE, BLUE)


def test_half_transparent_grey_is_half_white():
    data = encoded(Image.new("LA", (8, 8), (0, 128)))
    assert load_image(data, resolution=8)[0, 0].tolist() == [127, 127, 127]


def test_a_colour_declared_transparent_lies_on_white():
    data = encoded(halves(RED, BLUE), transparency=RED)  # tRNS of an RGB image
    assert corners(data) == tenths(WHITE, BLUE, WHITE, BLUE)


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
    data = encoded(Image.fromarray(values))
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert load_image(data, resolution=4, channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_keeps_its_high_bytes():
    row = b"\0" + struct.pack(">HHH", 65535, 0x8000, 0) * 8
    body = zlib.compress(row * 8)
    whole = png_header(8, 8, depth=16)
    old = struct.pack(">I", len(zlib.compress(b""))) + b"IDAT"
    start = whole.index(old)
    end = start + 12 + len(zlib.compress(b""))
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body
    data = whole[:start] + chunk + struct.pack(">I", zlib.crc32(b"IDAT" + body)) + whole[end:]
    assert load_image(data, resolution=8)[0, 0].tolist() == [255, 128, 0]


CMYK_RED, CMYK_BLUE = (0, 255, 255, 0), (255, 255, 0, 0)


def test_inverted_cmyk_of_adobe_has_its_colours():
    data = encoded(halves(CMYK_RED, CMYK_BLUE, (16, 16), "CMYK"), "JPEG", **JPEG)
    assert b"Adobe" in data
    assert corners(data) == tenths(RED, BLUE, RED, BLUE)


def test_plain_cmyk_has_its_colours():
    inverted = halves(tuple(255 - v for v in CMYK_RED), tuple(255 - v for v in CMYK_BLUE),
                      (16, 16), "CMYK")  # fmt: skip
    data = encoded(inverted, "JPEG", **JPEG)  # Pillow stores 255 - value: plain values
    start = data.index(b"\xff\xee")  # the Adobe marker
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    plain = data[:start] + data[start + 2 + length :]
    assert b"Adobe" not in plain and Image.open(io.BytesIO(plain)).mode == "CMYK"
    assert corners(plain) == tenths(RED, BLUE, RED, BLUE)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif.tobytes()))
    turned += exif.tobytes() + plain[2:]
    assert corners(turned) == tenths(BLUE, RED, BLUE, RED)
    tiff = encoded(halves(CMYK_RED, CMYK_BLUE, (16, 16), "CMYK"), "TIFF")
    assert corners(tiff) == tenths(RED, BLUE, RED, BLUE)


# Rotation, animation.


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_rotation_is_applied(orientation, form):
    upright = Image.new("RGB", (16, 16), WHITE)
    for colour, box in ((RED, (0, 0, 8, 8)), (GREEN, (8, 0, 16, 8)), (BLUE, (0, 8, 8, 16))):
        upright.paste(colour, box)
    turn = Image.Transpose
    undo = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE,
            turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270][orientation - 1]  # fmt: skip
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = JPEG if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    data = encoded(stored, form, exif=exif, **options)
    assert corners(data) == tenths(RED, GREEN, BLUE, WHITE)


def test_an_impossible_or_damaged_rotation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert corners(encoded(halves(RED, BLUE), exif=exif)) == tenths(RED, BLUE, RED, BLUE)
    damaged = encoded(halves(RED, BLUE), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert corners(damaged) == tenths(RED, BLUE, RED, BLUE)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_the_image(form):
    frames = [Image.new("RGB", (16, 16), c) for c in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert corners(data) == tenths(RED, RED, RED, RED)


# What lies beside the picture.


def packed(size):
    return zlib.compress(bytes(size))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"iCCP", b"big\0\0" + packed(2 << 20)),
        (b"zTXt", b"log\0\0" + packed(2 << 20)),
        (b"iTXt", b"log\0\1\0\0\0" + packed(2 << 20)),
        (b"pHYs", b"short"),
    ],
)
def test_nothing_beside_the_pixels_refuses_a_png(name, body, late):
    """Pillow stops at 1 MB of a profile or a packed text."""
    data = with_chunk(encoded(halves(RED, BLUE)), name, body, late=late)
    assert corners(data) == tenths(RED, BLUE, RED, BLUE)


def test_a_png_with_a_large_profile_is_turned_as_its_text_says():
    """An orientation in XMP, which Pillow reads, is not lost with the profile."""
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'
    data = with_chunk(encoded(halves(RED, BLUE)), b"iTXt", xmp)
    turned = corners(data)
    assert turned == tenths(BLUE, RED, BLUE, RED)
    data = with_chunk(data, b"iCCP", b"big\0\0" + packed(2 << 20))
    assert corners(data) == turned


# Boxes and files.


def test_a_box_becomes_a_square_inside_the_image():
    assert square_around((10, 10, 20, 10), (100, 100)) == (10, 5, 30, 25)
    assert square_around((90, 0, 20, 10), (100, 100)) == (80, 0, 100, 20)
    assert square_around((0, 0, 100, 30), (100, 50)) == (25, 0, 75, 50)
    with pytest.raises(BadImage, match="empty"):
        square_around((0, 0, 0, 5), (10, 10))


def test_only_the_box_is_seen():
    image = Image.new("RGB", (40, 40), GREEN)
    image.paste(RED, (20, 4, 36, 20))
    wide = corners(encoded(image), box=(20.0, 4.0, 16.0, 12.0))
    assert wide == tenths(GREEN, GREEN, RED, RED)
    assert corners(encoded(image), box=(20.0, 4.0, 16.0, 16.0)) == tenths(RED, RED, RED, RED)


def test_files_pickle_and_name_themselves_in_errors(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(Image.new("RGB", (9, 12), RED)))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    names = ("good.png", "bad.jpg", "gone.png")
    files = ImageFiles(paths=tuple(str(tmp_path / n) for n in names), resolution=4)
    files = sent(files)
    assert (files(0) == RED).all()
    with pytest.raises(BadImage, match=r"bad\.jpg: not an image"):
        files(1)
    with pytest.raises(BadImage, match=r"gone\.png: No such file"):
        files(2)


def test_a_resolution_beyond_reason_names_the_option():
    for wrong in (0, -3, 5000):
        with pytest.raises(ValueError, match=rf"--resolution must be from 1 to .* got {wrong}"):
            Options(resolution=wrong)
