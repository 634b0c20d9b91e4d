"""Pixels as the bytes of an image file: without loss, unless the user asks for JPEG.

The same pixels give the same bytes under the same Pillow; nothing of the moment enters them.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cbdm_scale.storage.checks import Range, check_fields

if TYPE_CHECKING:  # --help reads this file and should be quick
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["png", "webp", "jpeg"]
SUFFIX: dict[Format, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
JPEG_QUALITY = 95
MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""What IPTC calls an image that a trained model made: its DigitalSourceType."""
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{MADE_BY_A_MODEL}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
"""The mark in the file of a generated image, which a copy of the file keeps."""
Quality = Annotated[int, Range(ge=1, le=100, hint="Try 95.")]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How images are stored; png and webp are lossless.

    PNG is Pillow's own, level 6: on photographs of 64 x 64 pixels level 1 makes files 3.5 %
    larger in three quarters of the time, level 9 no smaller ones. WebP's effort is one sixth of
    its default's, for files 2 % larger and still a quarter smaller than PNG.
    """

    format: Format = "png"
    quality: Quality | None = None
    """Of JPEG, 1 to 100; None is 95. Colours are kept at full resolution."""

    def __post_init__(self) -> None:
        check_fields(self, "--")
        if self.quality is not None and self.format != "jpeg":
            raise ValueError(
                f"--quality ({self.quality}) means nothing for --format {self.format}, which "
                "is lossless. Leave it out, or add --format jpeg."
            )

    @property
    def suffix(self) -> str:
        """Of file names, without the dot."""
        return SUFFIX[self.format]

    @property
    def words(self) -> str:
        """What dataset.json adds to the line of its source; nothing for the default."""
        match self.format:
            case "png":
                return ""
            case "webp":
                return ", stored as lossless WebP"
            case "jpeg":
                return f", stored as JPEG of quality {self._options()['quality']}"

    def _options(self) -> dict[str, Any]:
        match self.format:
            case "png":
                return {}
            case "webp":
                return {"lossless": True, "quality": 25, "method": 2}  # quality is effort
            case "jpeg":
                return {"quality": self.quality or JPEG_QUALITY, "subsampling": 0}

    def encode(self, pixels: "NDArray[np.uint8]", *, generated: bool = False) -> bytes:
        """(H, W, C) uint8, C = 1 or 3, as a file; a generated image's says so in XMP."""
        from PIL import Image

        file, more = io.BytesIO(), self._options()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if generated and self.format == "png":
            from PIL.PngImagePlugin import PngInfo

            more["pnginfo"] = PngInfo()
            more["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
        elif generated:
            more["xmp"] = XMP.encode()
        image.save(file, self.format, **more)
        return file.getvalue()
