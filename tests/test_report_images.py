import base64
import io

from PIL import Image
from report_tools import example, pictures

from cbdm_scale.evaluation.report.images import data_url


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
