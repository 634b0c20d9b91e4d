"""The project's commands as a user types them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from cbdm_scale.config.run_options import resolve
from cbdm_scale.config.schema import Config
from cbdm_scale.train import parse

SPEED = re.compile(r"[\d,]+/[\d,]+ images \| ([\d,.]+)/s")


def train_command(
    options: str, *, shards: Path | str, storage: Path | str, name: str
) -> list[str]:
    """Words of a train command, its options written as in a shell."""
    where = ["--data.root", str(shards), "--cluster.storage", str(storage), "--name", name]
    return [sys.executable, "-m", "cbdm_scale.train", *where, *shlex.split(options)]


def train_config(options: str, *, shards: Path | str, storage: Path | str, name: str) -> Config:
    """What such a command trains."""
    words = train_command(options, shards=shards, storage=storage, name=name)
    return resolve(parse(words[3:]).config)


def speeds(said: str) -> list[float]:
    """Images a second, from every report among the lines of a train command."""
    return [float(number.replace(",", "")) for number in SPEED.findall(said)]


def run_quietly(words: list[str]) -> None:
    """To its end; what it says is shown only if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}")


def prepare_data(options: str) -> None:
    run_quietly([sys.executable, "-m", "data_prep", *shlex.split(options)])
