"""The train command on 1, 2 and 3 hosts with addresses and cables of their own.

Hosts are network namespaces of this machine (benchmarks.hosts): what they share are its cores,
of which each may use one, so no more hosts are faster than there are cores.
"""

import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.hosts import NAME, Hosts, namespace, why_not
from benchmarks.timing import median, ratio_of_medians

BATCH, STEPS, LEFT_OUT = 48, 24, 4
"""Images and steps of a run; the first few warm up."""
SPEED = re.compile(r"[\d,]+/[\d,]+ images \| ([\d,.]+)/s")


def words(folder: Path, name: str, hosts: int, channels: int) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name),
        *("--data.root", f"{folder}/shards", "--cluster.storage", f"{folder}/runs"),
        *("--track.uri", f"sqlite:///{folder}/numbers.db", "--cluster.workers", str(hosts)),
        *("--model.channels", str(channels), "--train.batch-size", str(BATCH)),
        *("--train.total-images", str(STEPS * BATCH), "--train.log-every", str(BATCH)),
        *("--train.sample-every", "0", "--train.eval-every", "0", "--eval.extractor", "none"),
        *("--train.save-every", str(1 << 30), "--sample.num-steps", "2"),
    ]


def speeds_of(hosts: Hosts, folder: Path, name: str, number: int, channels: int) -> list[float]:
    """Images a second in every step of a run."""
    said = hosts.run(0, words(folder, name, number, channels), 900)
    return [float(speed.replace(",", "")) for speed in SPEED.findall(said)][LEFT_OUT:]


def set_rate(hosts: Hosts, rate: str) -> None:
    """Hold every host's cable to a rate in both directions."""
    for host in range(hosts.number):
        for where, cable in ((namespace(host), "eth0"), (f"{NAME}-net", f"port{host}")):
            shape = f"tc -n {where} qdisc add dev {cable} root tbf rate {rate}"
            subprocess.run([*shape.split(), "burst", "256k", "latency", "200ms"], check=True)


def run(numbers: list[int], repetitions: int, channels: int, rate: str, seed: int = 0) -> str:
    """Markdown: images a second by number of hosts."""
    if problem := why_not():
        sys.exit(f"error: no hosts here: {problem}")
    speeds: dict[int, list[float]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare = [sys.executable, "-m", "data_prep", "digits-lt", "--out", f"{folder}/shards"]
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        about = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "c0ffee" * 11,
            "RAY_worker_niceness": "0",
            "CBDM_SCALE_CACHE": f"{folder}/cache",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        with Hosts(max(numbers) + 1, about) as hosts:
            hosts.start_ray()
            if rate != "free":
                set_rate(hosts, rate)
            for number in numbers:  # not counted: files are read for the first time
                speeds_of(hosts, folder, f"warm-{number}", number, channels)
            chance = random.Random(seed)
            for repetition in range(repetitions):
                for number in chance.sample(numbers, len(numbers)):
                    name = f"{number}-{repetition}"
                    speeds[number] += speeds_of(hosts, folder, name, number, channels)
                    print(f"{name}: {middle(speeds[number]):.0f} images/s", flush=True)
    return table(speeds)


def middle(values: list[float]) -> float:
    return float(median(torch.tensor(values).double()))


def table(speeds: dict[int, list[float]]) -> str:
    base = speeds[min(speeds)]
    lines = [f"| hosts | images/s | / {min(speeds)} |", "|---|---|---|"]
    for number, found in speeds.items():
        ratio = ratio_of_medians(found, base) if found is not base else 1
        lines.append(f"| {number} | {middle(found):.0f} | {ratio} |")
    return "\n".join(lines)
