import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import vl_convert
from report_tools import around, example, pictures

from cbdm_scale.evaluation.report import page as page_module
from cbdm_scale.evaluation.report import rendering
from cbdm_scale.evaluation.report.formatting import interval
from cbdm_scale.evaluation.report.page import write_report
from cbdm_scale.evaluation.results import Missing
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassTable

STRANGE = (
    "<script>alert(1)</script>",
    "x" * 300,
    "日本語 العربية",
    '$a_{b}$ & "q" <b>',
    "'><img src=http://host/a.png>",
    "",
    "a\u202eb",
    "plain",
    "\\frac",
    "nine",
)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails where an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.scripts = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def specs(self):
        """The specification of each chart, by its name."""
        return json.loads(self.scripts[0])["specs"] if self.scripts else {}


def written(tmp_path, evaluation, images=None, against=None):
    paths = write_report(evaluation, images, tmp_path, against)
    assert paths[0] == tmp_path / "report.html" and all(path.exists() for path in paths)
    return Page(paths[0].read_text("utf-8")), paths


def bare(evaluation):
    """The evaluation of one set without any number that can be drawn but FIDs of classes."""
    numbers = "fid", "kid", "precision", "recall", "density", "coverage", "f8", "f_eighth"
    curves = {"prd_precision": (), "prd_recall": (), "memorisation": ()}
    table = evaluation.best.table
    rows = tuple(replace(row, kid=None, fidelity=None) for row in table.classes)
    table = replace(table, classes=rows)
    found = replace(evaluation.best, **dict.fromkeys(numbers), **curves, table=table)
    return replace(evaluation, sets=(found,))


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Two runs, strange names, two strengths, nearest images."""
    evaluation = example(10, omegas=(0.8, 1.2), names=STRANGE, run="<i>run</i>")
    against = example(10, omegas=(0.8, 1.2), level=1.4, run="other & run")
    folder = tmp_path_factory.mktemp("strange")
    return written(folder, evaluation, pictures(evaluation, side=8, channels=1), against)


def test_the_page_loads_nothing_and_runs_its_own_script_alone(strange):
    page, paths = strange
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("script") == 2, "the charts as data, and what draws them"
    assert [pair for pair in page.attributes if pair[0] == "script"] == [
        ("script", "type", "application/json"),
        ("script", "id", "charts"),
    ]
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{tag} {name}"
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/", "#")), f"{tag} {name}={value[:40]}"
    text = paths[0].read_text("utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    for spec in page.specs.values():
        assert '"url"' not in json.dumps(spec), "data of a chart that is not on the page"
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = [value for tag, name, value in page.attributes if value and "default-src" in value]
    assert policy == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    ]


def test_the_library_of_the_charts_is_bundled_once_a_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path))
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda: "vega")
    first = rendering._script()
    monkeypatch.delattr("vl_convert.javascript_bundle")
    assert rendering._script() == first and first.startswith("vega\n")
    assert [file.name for file in tmp_path.iterdir()] == [f"vega-{vl_convert.__version__}.js"]


def test_every_chart_of_the_page_has_its_specification_and_tooltips(strange):
    page, _ = strange
    shown = [value for _, name, value in page.attributes if name == "data-chart"]
    assert sorted(shown) == sorted(page.specs) and len(shown) == 3 + 8 + 1 + 1
    assert all('"tooltip"' in json.dumps(spec) for spec in page.specs.values())


def test_names_from_strangers_are_text(strange):
    page, _ = strange
    for name in STRANGE[:1] + STRANGE[2:5] + STRANGE[6:]:
        assert " ".join(name.split()) in page.text
    assert "<i>run</i>" in page.text and "other & run" in page.text
    assert "class 5" in page.text  # where the name is empty
    assert "x" * 79 + "…" in page.text and "x" * 81 not in page.text
    assert ("bdi", "title", "x" * 300) in page.attributes, "told in full as a title"


def test_no_text_of_an_evaluation_can_become_an_element(tmp_path):
    evil = "<b id=evil>' \" & $"
    whole = bare(example(3, omegas=(1.0,), names=(evil,) * 3))
    found = replace(
        whole.best,
        images=evil,
        guidance_mode=evil,
        prd_note=evil,
        missing=(Missing("fid", evil), Missing(evil, evil)),
        table=replace(
            whole.best.table,
            classes=tuple(
                replace(row, fid=None, fid_missing=evil) for row in whole.best.table.classes
            ),
        ),
    )
    told = dict.fromkeys(
        ("id", "run", "checkpoint", "dataset", "dataset_fingerprint", "extractor")
        + ("extractor_fingerprint", "resize"),
        evil,
    )
    ours = replace(whole, **told, sets=(found,))
    for number, theirs in enumerate((ours, replace(ours, resize=f"{evil}2"))):
        page, paths = written(tmp_path / str(number), ours, None, theirs)
        assert ("id", "evil") not in [pair[1:] for pair in page.attributes]
        assert evil not in paths[0].read_text("utf-8")
        assert page.text.count(evil) > 15


def test_every_class_is_in_the_table_with_its_numbers(strange):
    page, _ = strange
    rows = page.text[page.text.index("Every class") :]
    for row in example(10, omegas=(0.8,)).best.table.classes:
        assert interval(row.fid)[0] in rows and f"{row.num_train}" in rows


def test_recall_by_group_stands_in_the_table_of_groups_alone(tmp_path):
    evaluation = example(4, omegas=(1.0,))
    page, _ = written(tmp_path / "without", evaluation)
    assert "recall" not in page.text[page.text.index("Every class") :]
    table = evaluation.best.table
    rows = tuple(replace(row, recall=0.8125 if row.group else 0.5) for row in table.pooled)
    best = replace(evaluation.best, table=replace(table, pooled=rows))
    page, _ = written(tmp_path / "with", replace(evaluation, sets=(best,)))
    text = page.text[page.text.index("Every class") :]
    assert text.count("recall") == 1 and text.count("0.812") == 3 and "0.500" in text


def test_images_are_shown_real_made_and_nearest(strange):
    page, paths = strange
    assert sum(tag == "img" for tag in page.tags) == 6 * 3 * 8
    assert page.text.count("nearest training image of each") == 6
    assert sum(path.name.startswith("class_") for path in paths) == 6


def test_the_files_are_pictures(strange):
    from PIL import Image

    _, paths = strange
    names = {path.stem for path in paths[1:]}
    assert {"per_class", "guidance", "prd", "copies"} < names
    for path in paths[1:]:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width > 60
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 8


def test_both_modes_of_colour_have_every_variable_that_is_used(strange):
    _, paths = strange
    text = paths[0].read_text("utf-8")
    used = set(re.findall(r"var\((--[a-z]+)\)", text)) - {"--n", "--w"}
    light, dark = re.findall(r":root\{([^}]*)\}", text)
    assert all(f"{name}:#" in light and f"{name}:#" in dark for name in used)
    page, _ = strange
    night = json.loads(page.scripts[0])["night"]
    drawn = set(re.findall(r'"(#[0-9a-f]{6})"', json.dumps(page.specs)))
    assert drawn and drawn <= night.keys(), "a colour that dark mode cannot change"
    assert not night.keys() & set(night.values())


def test_a_page_shows_strengths_by_class_and_the_guide(tmp_path):
    evaluation, omega = example(4, omegas=(0.0, 1.0)), "many=0.5,few=1"
    by_group = replace(evaluation.sets[0], omega=omega, fid=around(0.1, 0.05), guide="24-ema")
    found = replace(evaluation, sets=(*evaluation.sets, by_group))
    write_report(found, pictures(found), tmp_path, found)
    page = (tmp_path / "report.html").read_text()
    assert f"0, 1, {omega} (cfg by 24-ema)" in page
    assert f"{omega} has the smallest FID" in page and "Dashed" not in page


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    evaluation = example(4, omegas=(1.0,))
    first = [path.read_bytes() for path in write_report(evaluation, None, tmp_path / "a")]
    again = [path.read_bytes() for path in write_report(evaluation, None, tmp_path / "b")]
    assert first == again


def test_a_number_that_is_missing_is_not_printed_and_its_reason_is(tmp_path):
    whole = bare(example(3, omegas=(1.0,), scores=False, fidelity=False, images=30))
    told = (
        *whole.best.missing,
        Missing("fid", "the covariance <is> not positive"),
        Missing("memorisation", "no training images are at hand"),
    )
    found = replace(whole.best, missing=told)
    page, _ = written(
        tmp_path, replace(whole, sets=(found,), held_out_copies=(), trained_images=None)
    )
    assert not re.search(r"\b(None|nan|inf)\b", page.text)
    told = page.text[page.text.index("Not computed") :]
    assert "FID: the covariance <is> not positive" in told
    assert "Near-copies of training images: no training images are at hand" in told
    assert "Inception Score: the network has no ImageNet classes" in told
    assert "PRD curve: not computed" in told
    assert "Recall: not computed, and no reason was given" in told
    assert "FID of 3 classes: 30 real images: too few" in told
    assert "KID of 3 classes: fewer than 2 images" in told
    assert "not known" in told  # how many images it was trained on
    assert page.text.count("no FID") >= 3


def test_images_are_shown_by_name_also_where_there_is_no_table(tmp_path):
    evaluation = example(3, omegas=(1.0,), names=("ash", "birch", "cedar"))
    images = pictures(evaluation, side=8, channels=1)
    best = replace(evaluation.best, table=ClassTable((), ()), missing=(Missing("table", "no"),))
    page, _ = written(tmp_path, replace(evaluation, sets=(best,)), images)
    assert all(name in page.text for name in ("ash", "birch", "cedar"))


def test_a_number_whose_ends_are_not_known_stands_alone(tmp_path):
    evaluation = example(3, omegas=(1.0, 2.0))
    sets = tuple(replace(one, fid=Interval(3.25)) for one in evaluation.sets)
    page, _ = written(tmp_path, replace(evaluation, sets=sets))
    assert "FID 3.25 at guidance 1" in page.text and "nan" not in page.text
    assert "NaN" not in page.scripts[0]


def test_a_thousand_classes_stay_readable(tmp_path):
    names = tuple(f"class {c} " + "of a very long name " * 10 for c in range(1000))
    evaluation = example(1000, omegas=(1.0,), names=names)
    page, paths = written(tmp_path, evaluation, pictures(evaluation, side=96, nearest=False))
    assert paths[0].stat().st_size < 5_000_000
    assert page.tags.count("details") == 1 and "All 1,000 classes" in page.text
    assert page.tags.count("tr") == (1 + 4) + (1 + 10) + (1 + 5) + (1 + 1000)
    worst = page.text[page.text.index("Worst 10 by KID") :]
    table = evaluation.best.table.classes
    names = [names[row.label][:12] for row in sorted(table, key=lambda r: -r.kid.value)]
    assert worst.index(names[0]) < worst.index("Best 5 by KID")
    assert worst.index("Best 5 by KID") < worst.index(names[-1]) < worst.index("All 1,000")


def test_of_more_classes_than_a_page_can_hold_both_ends_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "LISTED", 20)
    evaluation = example(30, omegas=(1.0,))
    page, _ = written(tmp_path, evaluation)
    assert page.tags.count("tr") == (1 + 4) + (1 + 10) + (1 + 5) + (1 + 20)
    assert "The 10 most frequent and the 10 rarest of 30 classes (metrics.json has" in page.text
    listed = page.text[page.text.index("rarest of 30") :]
    rows = sorted(evaluation.best.table.classes, key=lambda row: (-row.num_train, row.label))
    shown = [f"class {row.label} " in listed for row in rows]
    assert shown == [True] * 10 + [False] * 10 + [True] * 10


def test_another_run_that_does_not_compare_is_named_and_not_drawn(tmp_path):
    evaluation = example(4, omegas=(1.0,))
    against = replace(
        example(4, omegas=(1.0,), run="that one"), resize="tf1", sets=example(4).sets[:1]
    )
    page, _ = written(tmp_path, evaluation, None, against)
    assert "another resize rule (bilinear here, tf1 there)" in page.text
    assert (
        "other run" not in page.text + json.dumps(page.specs)
        and "Compared with: that one" in page.text
    )


def test_numbers_of_odd_sizes_can_be_drawn(tmp_path):
    """No training image, negative KID, one class, equal ends."""
    evaluation = example(1, omegas=(1.0,))
    row = replace(evaluation.best.table.classes[0], num_train=0, kid=around(-0.001, 0.0))
    found = replace(evaluation.best, table=replace(evaluation.best.table, classes=(row,)))
    page, _ = written(tmp_path, replace(evaluation, sets=(found,)))
    assert "-1" in page.text and "no class is in it" in page.text
