import io
import json
from dataclasses import replace

import pytest
from altair.utils.schemapi import SchemaValidationError
from PIL import Image
from report_tools import around, counts_of, example

from cbdm_scale.evaluation.report import figures
from cbdm_scale.evaluation.report.charts import PALETTE, log_ticks
from cbdm_scale.evaluation.report.diversity import copies_panels, prd_panels
from cbdm_scale.evaluation.report.figures import (
    class_panels,
    curve,
    fidelity_map,
    guidance_panels,
    pictures,
)


@pytest.mark.parametrize("num_classes", [4, 40, 100])
def test_every_chart_is_one_that_vega_lite_takes(num_classes):
    first, second = (example(num_classes, omegas=(0.0, 1.0), level=at) for at in (1.0, 1.4))
    panels = [panel for drawn in pictures(first, second).values() for panel in drawn.panels]
    assert [panel.spec for panel in panels] == [panel.chart.to_dict() for panel in panels]
    chart = panels[0].chart.copy()
    chart.height = "tall"
    with pytest.raises(SchemaValidationError, match="tall"):
        chart.to_dict()


def rows_of(panel):
    """Every row of data of a panel's specification."""
    spec = panel.page_spec()
    return [row for rows in spec["datasets"].values() for row in rows]


def test_a_panel_a_measure_that_some_class_has():
    evaluation = example(4, omegas=(1.0,), fidelity=False, images=30)
    titles = [(panel.title, panel.about) for panel in class_panels(evaluation, None)]
    assert titles == [("KID × 1000", "lower is better")]
    bare = replace(evaluation.best.table, classes=())
    bare = replace(evaluation, sets=(replace(evaluation.best, table=bare),))
    assert class_panels(bare, None) == []


def test_one_strength_makes_no_curve_and_missing_numbers_no_panel():
    assert guidance_panels(example(4, omegas=(1.0,)), None) == []
    with_score = guidance_panels(example(4, omegas=(0.0, 1.0)), None)
    without = guidance_panels(example(4, omegas=(0.0, 1.0), scores=False), None)
    assert len(with_score) == 8 and len(without) == 7
    assert not any("Inception" in panel.title for panel in without)


def test_strengths_by_class_have_no_place_on_the_axis_of_omega():
    evaluation = example(4, omegas=(0.0, 1.0))
    by_group = replace(evaluation.sets[0], omega="many=0.5,few=1", fid=around(0.1, 0.05))
    mixed = replace(evaluation, sets=(*evaluation.sets, by_group))
    panels = guidance_panels(mixed, None)
    assert len(panels) == 8 and mixed.best.omega == "many=0.5,few=1"
    assert {row["omega"] for panel in panels for row in rows_of(panel)} == {0.0, 1.0}
    alone = replace(evaluation, sets=(by_group, replace(by_group, omega="count=1:-0.3")))
    assert guidance_panels(alone, None) == []


def test_a_curve_skips_the_strengths_that_lack_the_number():
    first, second = example(4, omegas=(0.0, 1.0)).sets
    found = curve(
        (replace(first, fid=None), replace(second, fid=around(3.0, 1.0))), lambda s: s.fid
    )
    numbers = [{k: row[k] for k in ("omega", "value", "low", "high")} for row in found]
    assert numbers == [{"omega": 1.0, "value": 3.0, "low": 2.0, "high": 4.0}]


def test_without_a_prd_curve_there_is_no_picture():
    found = replace(example(4, omegas=(1.0,)).best, prd_precision=(), prd_recall=())
    assert prd_panels(found, None) == []


def test_near_copies_stand_beside_what_chance_gives():
    evaluation = example(4, omegas=(1.0,))
    (panel,) = copies_panels(evaluation)
    assert {row["side"] for row in rows_of(panel)} == {"generated", "real"}
    few = next(r for r in rows_of(panel) if (r["group"], r["side"]) == ("few", "generated"))
    assert few["value"] == pytest.approx(5.5) and few["low"] < 5.5 < few["high"]
    assert copies_panels(replace(evaluation, held_out_copies=()))[0].about == ""


@pytest.mark.parametrize("num_classes", [10, 40])
def test_every_class_is_a_mark_in_the_chart_and_tells_its_numbers(num_classes):
    evaluation = example(num_classes, omegas=(1.0,))
    panel = class_panels(evaluation, None)[0]
    marks = [row for row in rows_of(panel) if "name" in row]
    assert sorted(row["name"] for row in marks) == sorted(evaluation.class_names)
    assert sorted(row["x"] for row in marks) == sorted(counts_of(evaluation))
    assert all(row["low"] <= row["value"] <= row["high"] and row["text"] for row in marks)
    medians = [row for row in rows_of(panel) if row.get("series") == "median"]
    assert bool(medians) == (num_classes > 30)


def test_classes_without_the_number_are_crosses():
    evaluation = example(10, omegas=(1.0,))
    first, *others = evaluation.best.table.classes
    table = replace(evaluation.best.table, classes=(replace(first, fid=None), *others))
    found = replace(evaluation, sets=(replace(evaluation.best, table=table),))
    crosses = [row for row in rows_of(class_panels(found, None)[1]) if "why" in row]
    assert [row["x"] for row in crosses] == [first.num_train]


def test_label_fidelity_of_many_classes_is_a_map():
    assert fidelity_map(example(40, omegas=(1.0,))) == []
    (panel,) = fidelity_map(example(100, omegas=(1.0,)))
    rows = rows_of(panel)
    assert len(rows) == 100 and len({(r["row"], r["column"]) for r in rows}) == 100
    counts = [int(row["images"]) for row in rows]
    assert counts == sorted(counts, reverse=True)


def test_the_png_is_drawn_from_the_specification_of_the_page():
    picture = pictures(example(4, omegas=(1.0,)), None)["copies"]
    spec = picture.panels[0].page_spec()
    drawn = json.dumps(spec["layer"])
    assert drawn == json.dumps(picture.panels[0].chart.to_dict()["layer"])
    image = Image.open(io.BytesIO(picture.png())).convert("RGB")
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    few = tuple(bytes.fromhex(PALETTE["few"][0][1:]))
    assert image.width > 600 and few in colours and (255, 255, 255) in colours


def test_ticks_are_one_two_and_five():
    assert log_ticks([5, 500]) == [5, 10, 20, 50, 100, 200, 500, 1000]
    assert log_ticks([0.0]) == [0.5, 1, 2]


@pytest.mark.parametrize("at", [(0.02, 0.02), (0.98, 0.99), (0.5, 0.5)])
def test_names_of_points_at_one_place_do_not_overlap_and_stay_inside(at):
    recall, precision = at
    best = example(4, omegas=(1.0,)).best
    [panel] = prd_panels(replace(best, prd_recall=(recall,), prd_precision=(precision,)), None)
    marks = [layer["mark"] for layer in panel.page_spec()["layer"]]
    texts = [mark for mark in marks if mark["type"] == "text"]
    assert len(texts) == 2 and abs(texts[0]["dy"] - texts[1]["dy"]) >= 12, "a line apart"
    for text in texts:
        assert (text["align"] == "left") == (recall < 0.3)
        assert (text["dy"] < 0) == (precision < 0.3)


def test_of_very_many_classes_some_are_drawn_over_the_whole_tail(monkeypatch):
    monkeypatch.setattr(figures, "DRAWN", 20)
    evaluation = example(50, omegas=(1.0,))
    panel, *_ = class_panels(evaluation, None)
    rows = [row for row in rows_of(panel) if "name" in row]
    counts = sorted(counts_of(evaluation))
    assert (
        15 <= len({row["name"] for row in rows}) <= 20 and "20 classes at most" in panel.about
    )
    drawn = [row["x"] for row in rows]
    assert min(drawn) == counts[0] and max(drawn) >= counts[-3]
    assert len([row for row in rows_of(panel) if row["series"] == "median"]) == 8
