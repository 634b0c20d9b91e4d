"""How well an earlier stop of a comparison tells the last."""

import math

import pytest
from scipy.stats import spearmanr

from cbdm_scale.storage.folder import Storage
from tune.comparison.choice import Chosen, Report
from tune.comparison.findings import Findings, Line, as_json, make_table
from tune.comparison.page import write_page
from tune.comparison.protocol import read_protocol
from tune.comparison.ranks import TOO_FEW, agreements, over_seeds, spearman

FID = {"fid": 1.0}


def grid(*fids, omegas=(0.5, 1.0)):
    """FID at the stops 48, 96, ..; at the second strength it is 5 more."""
    return {
        (48 * (k + 1), omega): {"fid": fid + 5 * place, "fid_few": 30 - fid}
        for k, fid in enumerate(fids)
        for place, omega in enumerate(omegas)
    }


def test_an_order_that_stays_has_1_and_one_turned_round_minus_1():
    same = [{0: grid(3, 9)}, {0: grid(2, 8)}, {0: grid(1, 7)}]
    (found,) = agreements(same, FID)
    assert (found.stop, found.num_networks, found.num_seeds, found.kept) == (48, 3, 1, 1.0)
    assert found.correlation.value == pytest.approx(1) and not found.correlation.is_known
    turned = [{0: grid(1, 9)}, {0: grid(2, 8)}, {0: grid(3, 7)}]
    (found,) = agreements(turned, FID)
    assert found.correlation.value == pytest.approx(-1) and found.kept == 0


def test_the_correlation_is_that_of_scipy_over_the_methods_of_a_seed():
    early, late = [4.0, 1.0, 3.0, 2.0, 5.0], [2.0, 1.0, 2.0, 6.0, 3.0]
    assert spearman(early, late) == pytest.approx(spearmanr(early, late).statistic)
    (found,) = agreements([{7: grid(*pair)} for pair in zip(early, late, strict=True)], FID)
    assert found.correlation.value == pytest.approx(spearmanr(early, late).statistic)


def test_seeds_are_ranked_each_by_itself():
    """Seed 1 has FIDs ten times as large: pooled, the order would seem to stay."""
    fids = ((1, 3), (2, 2), (3, 1))
    rows = [{0: grid(a, b), 1: grid(10 * a, 10 * b)} for a, b in fids]
    (found,) = agreements(rows, FID)
    assert found.correlation.value == pytest.approx(-1)
    assert (found.num_networks, found.num_seeds) == (6, 2)


def test_each_network_counts_at_its_best_strength_and_by_the_criterion():
    a = {(48, 0.5): {"fid": 9.0}, (48, 2.0): {"fid": 1.0}, (96, 0.5): {"fid": 1.0}}
    b = {(48, 0.5): {"fid": 2.0}, (48, 2.0): {"fid": 8.0}, (96, 0.5): {"fid": 2.0}}
    (found,) = agreements([{0: a}, {0: b}, {0: grid(3, 3)}], FID)
    assert found.correlation.value == pytest.approx(1)
    three = [{0: grid(3, 8)}, {0: grid(2, 9)}, {0: grid(1, 7)}]
    by_fid, by_few = (agreements(three, {s: 1.0})[0].correlation for s in ("fid", "fid_few"))
    assert by_fid.value == pytest.approx(0.5) == by_few.value
    other = agreements(three, {"fid": 1.0, "fid_few": 1.0})
    assert other == (), "30 for all: what does not differ has no order"


def test_a_method_without_one_of_the_two_stops_is_left_out_there():
    rows = [{0: grid(*fids)} for fids in ((3, 1, 9), (2, 2, 8), (1, 3, 7))]
    rows.append({0: {(144, 1.0): {"fid": 1.0}}})
    first, second = agreements(rows, FID)
    assert (first.num_networks, second.num_networks) == (3, 3)
    assert first.correlation.value == pytest.approx(1)
    assert second.correlation.value == pytest.approx(-1)
    assert agreements([{0: grid(k)} for k in range(3)], FID) == (), "one stop alone"


def test_of_two_methods_there_is_no_correlation_and_that_is_said():
    """It would be 1 or -1, whatever they are."""
    report = Report({"fid": 1.0}, (Chosen(96, {"all": 1.0}),) * 2)
    of = [{0: grid(3, 9), 1: grid(4, 5)}, {0: grid(2, 8), 1: grid(3, 6)}]
    assert agreements(of, FID) == ()
    lines = tuple(Line(f"m{i}", "m", 1.0, {0: report}, one) for i, one in enumerate(of))
    assert TOO_FEW in make_table(Findings(lines, {}))
    three = (*lines, Line("m2", "m", 1.0, {0: report}, of[0]))
    short = tuple(Line("m", "m", 1.0, {0: report}, {0: grid(1)}) for _ in range(2))
    for quiet in (three, short):
        assert TOO_FEW not in make_table(Findings(quiet, {}))


def test_the_best_of_the_end_is_kept_where_it_is_in_the_best_third():
    late = [1, 2, 3, 4, 5, 6]  # the first is the best at the end

    def kept(*early):
        rows = [{0: grid(*pair)} for pair in zip(early, late, strict=True)]
        return agreements(rows, FID)[0].kept

    assert kept(2, 1, 3, 4, 5, 6) == 1
    assert kept(3, 1, 2, 4, 5, 6) == 0


def test_the_interval_is_of_seeds_drawn_again():
    found = over_seeds([1.0, 0.0, 1.0, 1.0])
    assert found.value == 0.75
    assert (found.low, found.high) == (0.25, 1.0)
    assert over_seeds([0.5, 0.5]).low == 0.5
    assert math.isnan(over_seeds([0.5]).low)


def test_it_stands_in_the_table_in_the_findings_and_on_the_page(tmp_path):
    report = Report({"fid": 1.0}, (Chosen(96, {"all": 1.0}),) * 2)
    fids = ((1, 1, 3), (2, 2, 2), (3, 3, 1))
    grids = [{s: grid(f[0], f[1 + s]) for s in (0, 1)} for f in fids]
    lines = [
        Line(f"m{i}", f"m{i}", 1.0, dict.fromkeys(of, report), of) for i, of in enumerate(grids)
    ]
    found = Findings(tuple(lines), {}, agreements=agreements(grids, FID))
    assert "| 48 | 6 | 0.00 [-1.00, 1.00] | 50% of 2 |" in make_table(found)
    (one,) = as_json(found)["agreement_with_the_last_stop"]
    assert one["rank_correlation"] == pytest.approx([0, -1, 1]) and one["networks"] == 6
    protocol = read_protocol("digits")
    write_page(found, protocol, protocol.confirm, "confirm", Storage(str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    assert "0.00 [-1.00, 1.00]" in page and "What an earlier stop tells" in page
