"""Table 2 on the long-tailed digits: CBDM fine-tuning of a trained DDPM, by label set.

    python -m benchmarks.finetune_study --storage FOLDER [--images 72000] [--seeds 0 1 2]

For each seed a DDPM (72,000 images), and from its averaged weights four runs of 24,000 images:
CBDM with y' drawn as train, sqrt and bal (label_power 1, 1/2, 0), and DDPM continued, as the
control. The half-life of their average is shorter in proportion, or half of it would be the
origin. Each is the train command as a user types it; started again, the study goes on where it
was. Prints a Markdown table: mean and spread (half the range) over the seeds.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.digits_study import run_missing, table
from cbdm_scale import train
from cbdm_scale.evaluation.records import read_evaluation, training_home
from cbdm_scale.storage.folder import Storage

OMEGAS = 0.0, 1.0, 2.0
HALFLIVES = 4.3  # of the average in a run: as many as in the preset's 72,000 images
ORIGIN = "DDPM, the origin"
ROWS: dict[str, tuple[str, ...]] = {
    ORIGIN: ("--preset", "ddpm"),
    "DDPM continued": ("--preset", "ddpm"),
    "CBDM, train": ("--preset", "cbdm", "--loss.label-power", "1"),
    "CBDM, sqrt": ("--preset", "cbdm", "--loss.label-power", "0.5"),
    "CBDM, bal": ("--preset", "cbdm", "--loss.label-power", "0"),
}


def run_name(row: str, seed: int) -> str:
    return f"{row.lower().replace(',', '').replace(' ', '-')}-seed{seed}"


def images_of(row: str, args: argparse.Namespace) -> int:
    return int(args.images if row == ORIGIN else args.more_images)


def train_one(row: str, seed: int, args: argparse.Namespace) -> None:
    total = str(images_of(row, args))
    words = [
        *("--dataset", "digits_lt", *ROWS[row]),
        *("--name", run_name(row, seed), "--seed", str(seed)),
        *("--data.root", args.shards, "--cluster.storage", args.storage),
        *("--cluster.workers", "1", "--train.total-images", total),
        *("--train.save-every", total, "--train.sample-every", "0"),
        *("--train.log-every", "4800", "--track.experiment", "finetune study"),
        *("--eval.omegas", *map(str, OMEGAS), "--eval.num-images", str(args.num_images)),
    ]
    if row != ORIGIN:
        words += ["--init-from", str(Path(args.storage) / run_name(ORIGIN, seed))]
        words += ["--train.ema-halflife", str(round(args.more_images / HALFLIVES))]
    print("python -m cbdm_scale.train", *words, flush=True)
    status = train.main(words)
    if status:
        sys.exit(status)


def scores_of(row: str, seed: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    run = Storage(args.storage).child(run_name(row, seed))
    found = read_evaluation(training_home(run, images_of(row, args)))
    return found.scores if found else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--storage", required=True)
    parser.add_argument("--shards", default="shards")
    parser.add_argument("--images", type=int, default=72_000)
    parser.add_argument("--more-images", type=int, default=24_000)
    parser.add_argument("--num-images", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    scores = partial(scores_of, args=args)
    for i, seed in enumerate(args.seeds):
        run_missing(ROWS, seed, partial(train_one, args=args), scores, OMEGAS)
        seeds = args.seeds[: i + 1]
        print(f"\nseeds {seeds}\n\n{table(ROWS, seeds, scores, OMEGAS)}\n", flush=True)


if __name__ == "__main__":
    main()
