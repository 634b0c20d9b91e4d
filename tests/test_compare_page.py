"""The page of a comparison: what it says, and pictures of everything that can be drawn."""

from dataclasses import replace

import pytest

from cbdm_scale.storage.folder import Storage
from tune.comparison.choice import Chosen, Report
from tune.comparison.figures import over_stops, over_strengths, pictures
from tune.comparison.findings import Findings, Line, SpaceFindings, as_json, make_table
from tune.comparison.page import statement, write_page
from tune.comparison.protocol import read_protocol


def line(name, shift, seeds=3, one=True):
    """Its FID falls by ``shift`` and its label fidelity by a hundredth of it, in every seed."""
    reports, grid = {}, {}
    for seed in range(seeds):
        noise = 0.01 * seed * (1 + shift)
        scores = {
            "fid": 3 + seed - shift + noise,
            "fid_few": 9.0 + seed,
            "kept_few": 0.9 - shift / 100 + noise / 100,
        }
        reports[seed] = Report(scores, (Chosen(96, {"all": 1.0}), Chosen(48, {"all": 0.5})))
        grid[seed] = {
            (stop, omega): {s: v + omega + 48 / stop for s, v in scores.items()}
            for stop in (48, 96)
            for omega in (0.5, 1.0)
        }
    return Line(name, name, 1.0 + shift, reports, grid if one else {})


@pytest.fixture
def findings():
    lines = (line("ddpm", 0.0), line("ddpm, by group", 0.0, one=False), line("cbdm", 1.0))
    return Findings(
        lines,
        {
            "real images": {"fid": 0.5, "kept_few": 1.0},
            "labels shuffled": {"fid": 0.5, "kept_few": 0.1},
        },
    )


def test_a_sentence_a_method_says_what_is_beyond_noise(findings):
    first, same, better = statement(findings, "confirm")
    assert first == "Against ddpm, over 3 seeds at equal compute."
    assert same == "ddpm, by group: no difference beyond noise."
    assert better.startswith("cbdm: better in FID -0.99 [-1.01, -0.97]; worse in label kept")


def test_a_screen_decides_nothing(findings):
    assert statement(findings, "screen")[0].startswith("A screen: it says where to look")


def test_a_curve_is_at_the_best_of_what_is_not_on_its_axis():
    grid = {(48, 0.5): {"fid": 3.0}, (48, 1.0): {"fid": 2.0}, (96, 0.5): {"fid": 1.0}}
    assert over_stops(grid, "fid") == {48: 2.0, 96: 1.0}
    assert over_strengths(grid, "fid") == {0.5: 1.0, 1.0: 2.0}


def test_what_nobody_measured_has_no_picture(findings):
    drawn = pictures(findings)
    titles = {name: [panel.title for panel in one.panels] for name, one in drawn.items()}
    assert titles == {
        "differences": ["FID", "FID of the few classes", "label kept, few classes"],
        "compute": ["FID, all classes", "FID, few"],
        "strength": ["FID, all classes", "FID, few"],
    }
    alone = Findings((line("ddpm", 0.0, seeds=1),), {})
    assert "differences" not in pictures(alone)
    one_in_common = Findings((line("ddpm", 0.0, seeds=1), line("cbdm", 1.0)), {})
    assert "differences" not in pictures(one_in_common)


def test_the_page_holds_the_table_and_how_it_was_compared(findings, tmp_path, valid_charts):
    protocol = read_protocol("digits")
    write_page(findings, protocol, protocol.confirm, "confirm", Storage(str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    for text in (
        "cbdm: better in FID",
        "96 at 1 (3)",
        "labels shuffled",
        "images of the control",
    ):
        assert text in page
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.html", "differences.png", "compute.png", "strength.png")
    }


def test_a_further_space_has_tables_of_its_own_on_the_page_in_the_table_and_in_the_findings(
    findings, tmp_path
):
    other = SpaceFindings(
        (line("ddpm", 5.0), line("cbdm", 3.0)), {"real images": {"fid": 0.25}}, "inception"
    )
    both = replace(findings, extractor="classifier", further=(other,))
    first, _, second = make_table(both).partition("in the feature space of inception")
    assert f"{first}in" == f"{make_table(findings)}\n\nin", "the first is as it was"
    assert "chosen in that of classifier\n\n|  | cost | FID | many | medium | few |" in second
    assert "| cbdm | 4.00 | 1.04 ± 2.58 |" in second and "| real images |  | 0.25 |" in second
    assert "| cbdm | **+1.98 [+1.93, +2.03]** |" in second.partition("less ddpm")[2]
    tree = as_json(both)
    assert [tree["extractor"], tree["further"][0]["extractor"]] == ["classifier", "inception"]
    assert tree["lines"] == as_json(findings)["lines"]
    assert tree["further"][0]["lines"][1]["difference"]["fid"][0] == pytest.approx(1.98)
    assert tree["further"][0]["references"] == {"real images": {"fid": 0.25}}
    protocol = read_protocol("digits")
    write_page(both, protocol, protocol.confirm, "confirm", Storage(str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    section = page.partition("<h2>In another feature space</h2>")[2].partition("</section>")[0]
    for text in ("In the feature space of inception", "1.04 ± 2.58", "+1.98 [+1.93, +2.03]"):
        assert text in section
