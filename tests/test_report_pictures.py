from dataclasses import replace

import pytest
import torch
from report_tools import around, counts_of, example, pictures

from cbdm_scale.evaluation.examples import shown_classes
from cbdm_scale.evaluation.report.canvas import Panel, svg
from cbdm_scale.evaluation.report.class_charts import class_picture
from cbdm_scale.evaluation.report.curves import guidance_picture, prd_picture, track
from cbdm_scale.evaluation.report.grids import grid_files, grids_html
from cbdm_scale.evaluation.report.images import ReportImages


def test_head_middle_and_tail_are_shown():
    counts = [5, 900, 40, 41, 800, 7, 42, 30, 700, 6]
    assert shown_classes(counts) == (1, 4, 3, 2, 9, 0)
    assert shown_classes([3, 9, 1]) == (1, 0, 2)
    assert shown_classes([1] * 7) == (0, 1, 2, 3, 5, 6)


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
    import base64
    import io

    from PIL import Image

    evaluation = example(2, omegas=(1.0,))
    small, large = (pictures(evaluation, side=side, n=2) for side in (16, 200))

    def first(shown):
        data = grids_html(evaluation, shown).split("base64,")[1].split('"')[0]
        return Image.open(io.BytesIO(base64.b64decode(data)))

    assert 'class="row pixels"' in grids_html(evaluation, small)
    assert first(small).size == (16, 16) and first(small).format == "PNG"
    want = small.real[0, 0].permute(1, 2, 0).flatten().tolist()
    assert list(first(small).tobytes()) == want
    assert 'class="row pixels"' not in grids_html(evaluation, large)
    assert first(large).size == (128, 128)
    (file, *_) = grid_files(large).values()
    assert Image.open(io.BytesIO(file)).size == (2 * 201 + 1, 3 * 201 + 1)


def test_a_panel_a_measure_that_some_class_has():
    evaluation = example(4, omegas=(1.0,), fidelity=False, images=30)
    titles = [panel.title for panel in class_picture(evaluation.best, None).panels]
    assert titles == ["KID × 1000, lower is better"]
    bare = replace(evaluation.best.table, classes=())
    assert class_picture(replace(evaluation.best, table=bare), None) is None


def test_one_strength_makes_no_curve_and_missing_numbers_no_panel():
    assert guidance_picture(example(4, omegas=(1.0,)), None) is None
    with_score = guidance_picture(example(4, omegas=(0.0, 1.0)), None)
    without = guidance_picture(example(4, omegas=(0.0, 1.0), scores=False), None)
    assert len(with_score.panels) == 8 and len(without.panels) == 7
    assert not any("Inception" in panel.title for panel in without.panels)


def test_a_curve_skips_the_strengths_that_lack_the_number():
    first, second = example(4, omegas=(0.0, 1.0)).sets
    found = track(
        (replace(first, fid=None), replace(second, fid=around(3.0, 1.0))), lambda s: s.fid
    )
    assert (found.omega, found.value, found.low, found.high) == ((1.0,), (3.0,), (2.0,), (4.0,))


def test_without_a_prd_curve_there_is_no_picture():
    found = replace(example(4, omegas=(1.0,)).best, prd_precision=(), prd_recall=())
    assert prd_picture(found, None) is None


def test_names_with_dollars_are_no_formulas():
    def draw(axes):
        axes.set_xlabel("$a_{b <c>$")

    text = svg(Panel("a & b", draw), "name")
    assert "$a_{b &lt;c&gt;$" in text and 'aria-label="a &amp; b"' in text


def test_every_class_is_a_mark_in_the_chart():
    evaluation = example(40, omegas=(1.0,))
    panel = class_picture(evaluation.best, None).panels[0]
    marks = svg(panel, "x").count("<use")
    empty = svg(Panel("x", lambda axes: None), "x").count("<use")
    assert len(counts_of(evaluation)) <= marks - empty < 2 * 40
