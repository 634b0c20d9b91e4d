"""Methods at equal compute: protocols, scores of halves, choice and report, the table."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cbdm_scale.config.presets import PUBLISHED
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import absolute_paths
from tune.comparison.choice import Chooser, Chosen, Report, SetsInSpace, by_group
from tune.comparison.findings import Findings, Line, edge_note, make_table
from tune.comparison.options import CompareOptions
from tune.comparison.processes import run_jobs
from tune.comparison.protocol import SHIPPED, images_at, read_protocol
from tune.comparison.scores import (
    MOVED,
    REAL,
    SHUFFLED,
    TRAINING,
    average,
    halves_of,
    references,
    scorers,
)
from tune.comparison.sets import Features

PLAIN = """
dataset: digits_lt
control: ddpm
rows:
  ddpm: {preset: ddpm}
  cbdm: {preset: cbdm, options: {loss: {tau: 0.5}}, cost: 1.5, guidance: both}
screen: {seeds: [9], stops: [48], strengths: [0, 1]}
confirm: {seeds: [0, 1], stops: [48, 96], strengths: [1]}
"""
COUNTS = (200, 150, 120, 60, 50, 40, 30, 9, 6, 3)
"""3 many, 4 medium, 3 few."""


def write(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


def test_a_protocol_is_read_from_a_file(tmp_path):
    found = read_protocol(write(tmp_path, PLAIN))
    assert found.rows["cbdm"].options == {"loss.tau": 0.5}
    assert found.names(found.screen) == ("ddpm", "cbdm")
    assert found.rows["cbdm"].variants == ("one", "by_group")
    assert found.config("cbdm", "").loss.tau == 0.5


@pytest.mark.parametrize("name", sorted(file.stem for file in SHIPPED.glob("*.yaml")))
def test_a_protocol_that_comes_with_the_project_is_whole(name):
    found = read_protocol(name)
    assert found.about and found.control in found.rows
    for row in found.rows if found.dataset in PUBLISHED else ():
        config = found.config(row, "")
        for phase in (found.screen, found.confirm):
            assert images_at(max(phase.stops), 3.0, config.train.batch_size)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("control: ddpm", "control: edm", "control .edm. is none of the rows ddpm, cbdm"),
        ("seeds: [9]", "seeds: [1]", "seeds .1. are of both phases"),
        ("seeds: [9]", "seeds: [9, 9]", "seeds .9, 9. has a value twice"),
        ("loss: {tau: 0.5}", "track.uri: x", "track.uri is no part of a method"),
        ("loss: {tau: 0.5}", "train.total_images: 9", "train.total_images is no part"),
        ("ddpm: {preset: ddpm}", "ddpm: {preset: ddpm, cost: 2}", "costs 1. Leave it out"),
        ("  cbdm:", "  a/b:", "rows .a/b. becomes a folder"),
        ("guidance: both", "guidance: some", "guidance takes one or by_group or both"),
        ("control: ddpm", "controls: ddpm", "controls is no option"),
    ],
)
def test_a_wrong_protocol_is_told_apart(tmp_path, old, new, says):
    with pytest.raises(ValueError, match=says):
        read_protocol(write(tmp_path, PLAIN.replace(old, new)))


def test_a_second_stage_is_no_row_of_a_comparison(tmp_path):
    stage = "loss: {tcfg: true, tcfg_target: teacher}"
    found = read_protocol(write(tmp_path, PLAIN.replace("loss: {tau: 0.5}", stage)))
    with pytest.raises(ValueError, match=r"rows.cbdm: loss.tcfg_target \(teacher\) goes on"):
        found.config("cbdm", "")


def test_the_name_of_a_protocol_is_no_path(monkeypatch, tmp_path):
    """Options that are paths become absolute before a protocol is looked for by its name."""
    monkeypatch.chdir(tmp_path)
    options = absolute_paths(with_values(CompareOptions(), {"protocol": "photos16"}))
    assert read_protocol(options.protocol).dataset == "photos16"


def test_a_protocol_that_is_nowhere_names_those_that_are():
    with pytest.raises(ValueError, match=r"protocol \(nothing\) is neither a file .*digits"):
        read_protocol("nothing")


def test_equal_compute_is_fewer_images_of_a_dearer_method():
    assert images_at(144_000, 1.0, 48) == 144_000
    assert images_at(144_000, 1.8, 48) == 79_968  # 80,000 in whole batches of 48
    with pytest.raises(ValueError, match=r"stops \(50\) is less than a step of 48 images"):
        images_at(50, 1.8, 48)


def blobs(each, seed, shift=0.0):
    """Images of ten classes, each a blob of its own in 4 dimensions."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(10).repeat(each)
    x = torch.randn(len(y), 4, generator=rng) + 10 * y[:, None] + shift
    return Features(x, y, y.clone())


@pytest.fixture(scope="module")
def both():
    train = Features(torch.randn(50, 4) + 200, torch.arange(10).repeat(5), torch.zeros(50))
    return scorers(blobs(80, 0), train, COUNTS)


def test_the_halves_of_the_real_images_share_none_and_have_all_classes_alike():
    y = torch.tensor([0, 1, 0, 1, 1, 0, 2, 0, 1, 2, 2])
    first, second = halves_of(y)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(11))
    assert torch.bincount(y[first]).tolist() == [2, 2, 2]
    assert torch.bincount(y[second]).tolist() == [2, 2, 1]


def test_real_images_are_at_the_floor_and_shuffled_labels_at_chance(both):
    known = references(both, 400)
    floor, chance = known[REAL], known[SHUFFLED]
    assert floor["kept"] == 1 and chance["kept"] == pytest.approx(0.1, abs=0.05)
    assert floor["recall"] > 0.9
    assert floor["fid"] == pytest.approx(chance["fid"], abs=1e-9)
    assert floor["fid_few"] < 1 < chance["fid_few"]
    assert floor["copies"] == 0


def test_what_the_draw_of_the_training_images_costs_stands_beside(both):
    """Training images at (200, ..) from blobs at (10 c, ..): all that differs is the mean."""
    known = references(both, 400)
    gap = (both[0].train.x.mean(0) - both[0].real.x.mean(0)).square().sum().item()
    assert known[MOVED]["fid"] == pytest.approx(gap, rel=0.5)
    assert known[MOVED]["recall"] == 0 and "kept" not in known[MOVED]
    assert known[TRAINING]["copies"] == 1 and known[TRAINING]["fid"] > known[MOVED]["fid"] / 2
    shifted = scorers(blobs(80, 0), blobs(5, 1, shift=3.0), COUNTS)
    few = references(shifted, 400)[MOVED]["fid_few"]
    assert few == pytest.approx(4 * 3.0**2, rel=0.2)  # |3|^2 in four dimensions


def test_copies_are_counted_in_their_group(both):
    train = both[0].train
    few = torch.tensor([9, 9])
    found = both[0].scores(Features(train.x[[9, 19]], few, few))
    assert found["copies"] == found["copies_few"] == 1
    assert "copies_many" not in found and "recall" not in found


class Fake:
    """Sets whose FID is what a test says: a shift of the real blobs, by group."""

    def __init__(self, shifts):
        self.shifts = shifts  # point -> group -> shift in the first half, in the second

    def load(self, point):
        made = blobs(40, 1)
        for group, classes in (
            ("many", (0, 1, 2)),
            ("medium", (3, 4, 5, 6)),
            ("few", (7, 8, 9)),
        ):
            mine = torch.isin(made.y, torch.tensor(classes))
            half = torch.arange(len(made.y)) >= len(made.y) // 2
            for number in range(2):
                made.x[mine & (half == number)] += self.shifts[point][group][number]
        return made


def chooser(both, shifts, criterion, *further):
    """Of sets that lie so in the first space, and otherwise in further ones."""
    return Chooser([in_space(both, s) for s in (shifts, *further)], criterion)


def in_space(both, shifts):
    fake = Fake(shifts)
    scores = {
        p: tuple(j.scores(fake.load(p).half(n)) for n, j in enumerate(both)) for p in shifts
    }
    return SetsInSpace(fake.load, scores, both)


def everywhere(first, second):
    return {group: (first, second) for group in ("many", "medium", "few")}


def test_what_one_half_chooses_the_other_reports(both):
    """Each half prefers another strength: neither reports its own lucky number."""
    shifts = {(48, 0.5): everywhere(0, 3), (48, 1.0): everywhere(3, 0)}
    found = chooser(both, shifts, {"fid": 1.0})
    (report,) = found.reports("one")
    assert [c.strengths["all"] for c in report.chosen] == [0.5, 1.0]
    worst = [found.first.scores[48, 0.5][1]["fid"], found.first.scores[48, 1.0][0]["fid"]]
    assert report.scores["fid"] == pytest.approx(sum(worst) / 2)
    assert report.scores["fid"] > 30  # 4 dimensions x 3^2, and not the 0 of those that chose


def test_the_best_stop_and_strength_are_those_of_the_criterion(both):
    def shifted(many, few):
        return {"many": (many,) * 2, "medium": (0, 0), "few": (few,) * 2}

    shifts = {(48, 1.0): shifted(2, 0), (96, 1.0): shifted(0, 1)}
    assert chooser(both, shifts, {"fid": 1.0}).reports("one")[0].chosen[0].stop == 96
    assert chooser(both, shifts, {"fid_few": 1.0}).reports("one")[0].chosen[0].stop == 48
    mixed = {"fid_few": 1.0, "fid_many": 10.0}
    assert chooser(both, shifts, mixed).reports("one")[0].chosen[1].stop == 96


def test_each_group_has_its_own_strength_and_they_are_judged_together(both):
    shifts = {
        (48, 0.5): {"many": (0, 0), "medium": (0, 0), "few": (5, 5)},
        (48, 1.0): {"many": (5, 5), "medium": (1, 1), "few": (0, 0)},
    }
    found = chooser(both, shifts, {"fid": 1.0})
    (grouped,) = found.reports("by_group")
    assert grouped.chosen[0].strengths == {"many": 0.5, "medium": 0.5, "few": 1.0}
    plain = chooser(both, {(48, 0.0): everywhere(0, 0)}, {"fid": 1.0}).reports("one")[0]
    assert grouped.scores == pytest.approx(plain.scores)
    assert grouped.scores["fid"] < found.reports("one")[0].scores["fid"]


def test_the_first_space_chooses_for_the_further_ones(both):
    """What is best there is worst in the second space, which is told of it and not asked."""
    low, high = (48, 0.5), (48, 1.0)
    few_far = {"many": (0, 0), "medium": (0, 0), "few": (2, 2)}
    many_far = {"many": (2, 2), "medium": (0, 0), "few": (0, 0)}
    sides = {low: few_far, high: many_far}, {low: many_far, high: few_far}
    found = chooser(both, sides[0], {"fid_few": 1.0}, sides[1])
    first, second = found.reports("one")
    assert first.chosen == second.chosen and first.chosen[0].strengths == {"all": 1.0}
    assert second.scores == average(found.spaces[1].scores[high])
    assert second.scores["fid_few"] > 10 * first.scores["fid_few"]
    first, second = found.reports("by_group")
    assert first.chosen == second.chosen
    assert first.chosen[1].strengths == {"many": 0.5, "medium": 0.5, "few": 1.0}
    assert second.scores["fid"] > 10 * first.scores["fid"]


def test_a_criterion_of_groups_is_the_same_score_of_each_group():
    assert by_group({"fid": 1.0, "fid_few": 2.0, "kept": -3.0}, "few") == {
        "fid_few": 3.0,
        "kept_few": -3.0,
    }


def test_a_criterion_that_is_no_score_names_those_that_are(both):
    with pytest.raises(ValueError, match=r"criterion \(fids\) is no score.*fid_few"):
        chooser(both, {(48, 1.0): everywhere(0, 0)}, {"fids": 1.0}).reports("one")


def report(fid):
    return Report({"fid": fid, "kept": 0.5}, (Chosen(48, {"all": 1.0}),) * 2)


def test_differences_are_taken_seed_by_seed():
    control = Line("ddpm", "ddpm", 1.0, {0: report(10.0), 1: report(20.0), 2: report(30.0)})
    better = Line("cbdm", "cbdm", 1.5, {0: report(9.0), 1: report(18.9), 2: report(28.8)})
    found = better.difference(control, "fid")
    assert found is not None and found.value == pytest.approx(-1.1)
    # t of 2 degrees is 4.303; the deviation of -1, -1.1, -1.2 is 0.1
    assert found.high == pytest.approx(-1.1 + 4.303 * 0.1 / math.sqrt(3), abs=1e-3)
    table = make_table(Findings((control, better), {"real images": {"fid": 1.0}}))
    assert "**-1.10 [-1.35, -0.85]**" in table
    assert "| 48 at 1 (6) |" in table and "real images" in table
    assert "+0.000 [+0.000, +0.000]" in table  # no difference, and not bold


def test_a_line_with_one_seed_has_no_interval():
    table = make_table(Findings((Line("ddpm", "ddpm", 1.0, {0: report(10.0)}),), {}))
    assert "1 seed," in table and "| 10.00 |" in table and "less ddpm" not in table


def test_a_best_strength_at_the_end_of_those_tried_is_told():
    grid = {(48, omega): {"fid": 1.0} for omega in (0.0, 0.5, 1.0)}
    told = edge_note(Line("t2h", "t2h", 1.0, {0: report(10.0)}, {0: grid}))
    assert told == (
        "t2h: the best strength is mostly the largest that was tried (1). Try larger ones."
    )
    wider = {0: grid | {(48, 2.0): {"fid": 1.0}}}
    assert edge_note(Line("t2h", "t2h", 1.0, {0: report(10.0)}, wider)) == ""
    none = {0: Report({"fid": 1.0}, (Chosen(48, {"all": 0.0}),) * 2)}
    assert edge_note(Line("ddpm", "ddpm", 1.0, none, {0: grid})) == ""  # below 0 there is none


def odd_job(job, number):
    """Tells who did it; the jobs 1 and 3 go wrong in two ways."""
    if job == 1:
        raise ValueError("one is odd")
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_job_that_fails_or_is_killed_costs_no_other():
    found = dict(run_jobs(odd_job, [0, 1, 2, 3, 4, 5], 2))
    assert found[1] == "one is odd" and "its process died" in found[3]
    assert [found[job] for job in (0, 2, 4, 5)] == [""] * 4


def test_in_this_process_a_failed_job_costs_no_other():
    assert dict(run_jobs(odd_job, [0, 1, 2], 0)) == {0: "", 1: "one is odd", 2: ""}


@pytest.mark.slow
def test_processes_end_with_the_one_that_was_killed(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from tune.comparison.processes import run_jobs
import test_compare
if __name__ == "__main__":
    for _ in run_jobs(test_compare.long_job, [{str(tmp_path / "pid")!r}] * 2, 2):
        pass
"""
    (tmp_path / "main.py").write_text(code)
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], cwd=SHIPPED.parents[1])
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    pid = int((tmp_path / "pid").read_text())
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")


def long_job(file, number):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)
