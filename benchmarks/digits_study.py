"""DDPM against CBDM on the long-tailed digits: seeds, guidance scanned, spread stated.

    python -m benchmarks.digits_study --storage FOLDER [--images 96000] [--seeds 0 1 2]

Each run is the train command as a user types it, on one cluster; started again, the study goes
on where it was. Prints a Markdown table: mean and spread (half the range) over the seeds.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import mean

from cbdm_scale import train
from cbdm_scale.evaluation.records import read_evaluation, training_home
from cbdm_scale.storage.folder import Storage

Scores = Callable[[str, int], dict[str, dict[str, float]]]
"""Of a row and a seed: strength -> what was measured."""

OMEGAS = 0.0, 1.0, 2.0, 4.0
COST = 1.85  # of a CBDM step in DDPM steps
ROWS: dict[str, tuple[str, ...]] = {
    "DDPM": ("--preset", "ddpm"),
    "DDPM, CBDM's compute": ("--preset", "ddpm"),
    "CBDM": ("--preset", "cbdm"),
    "CBDM, reg_share 0.25": ("--preset", "cbdm", "--loss.reg-share", "0.25"),
}
COLUMNS = {
    "fid": "FID",
    "fid_many": "many",
    "fid_medium": "medium",
    "fid_few": "few",
    "fidelity": "label kept",
    "fidelity_many": "many",
    "fidelity_medium": "medium",
    "fidelity_few": "few",
}


def run_name(row: str, seed: int) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in row.lower())
    return f"{plain}-seed{seed}".replace("--", "-").replace("--", "-")


def images_of(row: str, images: int) -> int:
    longer = row == "DDPM, CBDM's compute"
    return round(images * COST / 48) * 48 if longer else images


def train_one(row: str, seed: int, args: argparse.Namespace) -> None:
    total = images_of(row, args.images)
    words = [
        *("--dataset", "digits_lt", *ROWS[row]),
        *("--name", run_name(row, seed), "--seed", str(seed)),
        *("--data.root", args.shards, "--cluster.storage", args.storage),
        *("--cluster.workers", "1", "--train.total-images", str(total)),
        *("--train.save-every", str(total), "--train.sample-every", "0"),
        *("--train.log-every", "4800", "--track.experiment", "digits study"),
        *("--eval.omegas", *map(str, OMEGAS), "--eval.num-images", str(args.num_images)),
    ]
    print("python -m cbdm_scale.train", *words, flush=True)
    status = train.main(words)
    if status:
        sys.exit(status)


def scores_of(row: str, seed: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    run = Storage(args.storage).child(run_name(row, seed))
    found = read_evaluation(training_home(run, images_of(row, args.images)))
    return found.scores if found else {}


def run_missing(
    rows: Iterable[str],
    seed: int,
    train_row: Callable[[str, int], None],
    scores: Scores,
    omegas: Sequence[float],
) -> None:
    """Train what has no scores yet; leaves the program if a run was stopped."""
    for row in rows:
        if not is_done(row, seed, scores, omegas):
            train_row(row, seed)
        if not is_done(row, seed, scores, omegas):
            sys.exit("stopped: the same command goes on from here")


def is_done(row: str, seed: int, scores: Scores, omegas: Sequence[float]) -> bool:
    return set(map(str, omegas)) <= scores(row, seed).keys()


def cell(values: list[float], percent: bool) -> str:
    scale, digits = (100, 0) if percent else (1, 1)
    spread = (max(values) - min(values)) / 2 * scale
    return f"{mean(values) * scale:.{digits}f} ± {spread:.{digits}f}"


def table(
    rows: Iterable[str], seeds: Sequence[int], scores: Scores, omegas: Sequence[float]
) -> str:
    """Markdown: a line a row and strength."""
    lines = ["| | omega | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    for row in rows:
        found = [scores(row, seed) for seed in seeds]
        for omega in omegas:
            cells = [
                cell([s[str(omega)][column] for s in found], column.startswith("fidelity"))
                for column in COLUMNS
            ]
            lines.append(f"| {row} | {omega:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--storage", required=True)
    parser.add_argument("--shards", default="shards")
    parser.add_argument("--images", type=int, default=96_000)
    parser.add_argument("--num-images", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    scores = partial(scores_of, args=args)
    for seed in args.seeds:
        run_missing(ROWS, seed, partial(train_one, args=args), scores, OMEGAS)
    print(table(ROWS, args.seeds, scores, OMEGAS))


if __name__ == "__main__":
    main()
