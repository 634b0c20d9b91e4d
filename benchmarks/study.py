"""A study: rows of options, each trained with several seeds by the train command.

A study that is started again goes on where it was.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.commands import train_command
from benchmarks.timing import mean
from cbdm_scale.evaluation.records import read_evaluation, training_home
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir

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


def arguments(doc: str | None, images: int) -> argparse.ArgumentParser:
    """The options that all studies have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storage", required=True)
    parser.add_argument("--shards", default="shards")
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--num-images", type=int, default=1_000, help="generated, for each FID")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def cells(values: Sequence[Mapping[str, float]]) -> list[str]:
    """Of all columns: the mean over seeds and half the range, if there are several."""
    found = []
    for column in COLUMNS:
        scale, digits = (100, 0) if column.startswith("fidelity") else (1, 1)
        numbers = [scale * one[column] for one in values]
        spread = (
            f" ± {(max(numbers) - min(numbers)) / 2:.{digits}f}" if len(numbers) > 1 else ""
        )
        found.append(f"{mean(numbers):.{digits}f}{spread}")
    return found


@dataclass(frozen=True, kw_only=True)
class Study:
    name: str
    """Of the experiment in MLflow."""
    args: argparse.Namespace
    rows: Mapping[str, str]
    """Options of the train command by row."""
    omegas: Sequence[float]
    images: Callable[[str], int]
    """How long a row is trained."""

    def run(self, row: str, seed: int) -> Storage:
        plain = re.sub("[^a-z0-9]+", "-", row.lower())
        return Storage(self.args.storage).child(f"{plain}-seed{seed}")

    def train(self, row: str, seed: int) -> None:
        """Unless it is done; leaves the program if the run was stopped."""
        run, total = self.run(row, seed), self.images(row)
        last = f"checkpoints/{total:012d}"
        if last in RunDir(run).checkpoints() and self.is_evaluated(row, seed):
            return
        options = f"""
            --dataset digits_lt {self.rows[row]} --seed {seed} --cluster.workers 1
            --train.total-images {total} --train.save-every 24000 --train.log-every 4800
            --train.sample-every 0 --track.experiment "{self.name}"
            --eval.guidance {" ".join(map(str, self.omegas))}
            --eval.num-images {self.args.num_images}
        """
        name = run.url.rpartition("/")[2]
        words = train_command(
            options, shards=self.args.shards, storage=self.args.storage, name=name
        )
        print(*words, flush=True)
        status = subprocess.run(words).returncode
        if status or last not in RunDir(run).checkpoints():
            sys.exit(status or "stopped: the same command goes on from here")

    def scores(self, row: str, seed: int) -> dict[str, dict[str, float]]:
        """Strength -> what was measured; empty if nothing was yet."""
        found = read_evaluation(training_home(self.run(row, seed), self.images(row)))
        return found.scores if found else {}

    def is_evaluated(self, row: str, seed: int) -> bool:
        return set(map(str, self.omegas)) <= self.scores(row, seed).keys()
