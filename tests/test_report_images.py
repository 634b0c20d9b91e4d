import base64
import io

import pytest
import torch
from PIL import Image
from report_tools import example, pictures

from cbdm_scale.evaluation.report.images import ReportImages, data_url


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"made": torch.zeros(2, 8, 3, 4, 4)}, r"made must be \(2, n, 1 or 3, H, W\) uint8"),
        ({"real": torch.zeros(3, 8, 3, 4, 4, dtype=torch.uint8)}, "real must be"),
        ({"made": torch.zeros(2, 8, 3, 5, 4, dtype=torch.uint8)}, "must be alike"),
        ({"nearest": torch.zeros(2, 7, 3, 4, 4, dtype=torch.uint8)}, "one image for each"),
    ],
)
def test_images_of_another_shape_are_an_error(change, says):
    good = torch.zeros(2, 8, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=says):
        ReportImages(**({"classes": (0, 1), "real": good, "made": good} | change))


def test_small_images_are_shown_pixel_by_pixel_and_large_ones_scaled_down():
    evaluation = example(2, omegas=(1.0,))
    small, large = (pictures(evaluation, side=side, n=2) for side in (16, 200))

    def first(shown):
        data = data_url(shown.real[0, 0]).split("base64,")[1]
        return Image.open(io.BytesIO(base64.b64decode(data)))

    assert small.pixelated and not large.pixelated
    assert first(small).size == (16, 16) and first(small).format == "PNG"
    want = small.real[0, 0].permute(1, 2, 0).flatten().tolist()
    assert list(first(small).tobytes()) == want
    assert first(large).size == (128, 128) and first(large).format == "JPEG"
    (file, *_) = large.grid_files().values()
    width, height = Image.open(io.BytesIO(file)).size
    assert width > 2 * 201 + 1 and height == 3 * 201 + 1, "its rows are named"
