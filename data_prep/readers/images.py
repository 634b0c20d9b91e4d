"""Any image file as a training image: decoded, upright, on white, centre-cropped, uint8.

The crop is ADM's (Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021):
halve with a box filter while the short side is at least twice the resolution, bring the short
side to the resolution with Pillow's bicubic filter (which antialiases), cut the centre. Smaller
images are enlarged by the same bicubic filter.

What a file may hold beside 8-bit RGB:
- grey, palette and CMYK become RGB (colour profiles are ignored, as ADM and torchvision do);
- transparent pixels lie on white. Dropping alpha, as convert("RGB") does, would show colours
  that editors leave under transparent pixels and that nobody has ever seen;
- 16-bit grey is scaled to 8 bits, not clipped; 16-bit colour keeps its high bytes;
- the EXIF rotation is applied, so that a box or a crop means what a viewer shows;
- of an animation, the first frame;
- one that is cut off, not an image, or larger than MAX_PIXELS is a BadImage; profiles and
  texts beside the pixels may be as large as they like. A JPEG whose
  middle is damaged decodes all the same: the decoder does not tell.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.images import MAX_PIXELS, NotAnImage, load_picture
from data_prep.source import BadImage

if TYPE_CHECKING:
    from PIL.Image import Image

FILTER = (
    "centre crop as in ADM: halved by a box filter, then bicubic with antialiasing, smaller "
    "images enlarged"
)
"""For ``Source.made``: how a file came to its resolution."""
RESOLUTION = 64
"""Default of --resolution."""
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = (2, 3, 4, 5, 6, 7, 8)
"""Values of the tag that ask for a change; 1 is upright."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the upright image; x and y are of the upper left corner."""


def load_image(
    data: bytes, *, resolution: int, channels: int = 3, box: Box | None = None
) -> NDArray[np.uint8]:
    """The bytes of a file -> (resolution, resolution, channels) uint8; BadImage says why not.

    ``channels`` is 3 for RGB or 1 for grey (Rec. 601). With ``box`` only the smallest square
    around it is seen, moved into the image where it sticks out, cut where the image is smaller.
    """
    assert channels in (1, 3), f"{channels} channels: 1 or 3"
    if not data:
        raise BadImage("it is empty (0 bytes)")
    with _refusals():
        image = _flatten(_upright(load_picture(data)))
        if channels == 1:
            image = image.convert("L")
        if box is not None:
            image = image.crop(square_around(box, image.size))
        pixels = np.asarray(center_crop(image, resolution))
    return pixels.reshape(resolution, resolution, channels)


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Files as the images of a split: ``Split.image``, opened when called."""

    paths: tuple[str, ...]
    resolution: int
    channels: int = 3
    boxes: tuple[Box, ...] | None = None
    """One a path: see load_image."""

    def __call__(self, i: int) -> NDArray[np.uint8]:
        path = self.paths[i]
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise BadImage(f"{path}: {error.strerror or error}") from error
        try:
            return load_image(
                data,
                resolution=self.resolution,
                channels=self.channels,
                box=None if self.boxes is None else self.boxes[i],
            )
        except BadImage as error:
            raise BadImage(f"{path}: {error}") from error


def center_crop(image: "Image", resolution: int) -> "Image":
    """ADM's crop: (any size) -> resolution x resolution."""
    from PIL.Image import Resampling

    while min(image.size) >= 2 * resolution:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Resampling.BOX)
    scale = resolution / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    if width * height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels: too long for its short side")
    image = image.resize((width, height), Resampling.BICUBIC)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def square_around(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square about a box as left, top, right, bottom, inside an image (width, height)."""
    x, y, width, height = box
    if not (width > 0 and height > 0 and np.isfinite(box).all()):
        raise BadImage(f"its box {box} is empty")
    side = min(max(1, round(max(width, height))), *size)
    left = min(max(0, round(x + (width - side) / 2)), size[0] - side)
    top = min(max(0, round(y + (height - side) / 2)), size[1] - side)
    return left, top, left + side, top + side


@contextmanager
def _refusals() -> Iterator[None]:
    """What a decoder raises about its input is a BadImage; what it warns of is not said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (BadImage, MemoryError):
            raise
        except NotAnImage as error:
            raise BadImage(str(error)) from error
        except Exception as error:  # decoders fail in too many ways to list
            raise BadImage(f"it does not decode: {error or type(error).__name__}") from error


def _upright(image: "Image") -> "Image":
    from PIL.Image import Transpose

    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF beside a good image: viewers ignore it too
        return image
    if orientation not in UPRIGHT:
        return image
    turned = image.transpose(turns[UPRIGHT.index(orientation)])
    turned.format = image.format  # _flatten asks for it
    return turned


def _flatten(image: "Image") -> "Image":
    """8 bits, L or RGB, opaque."""
    from PIL import Image, ImageChops

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage(f"mode {image.mode} with values beyond 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("its pixels are floats, whose range is unknown")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(
            image
        )  # Pillow takes every CMYK JPEG for Adobe's inverted one
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")
