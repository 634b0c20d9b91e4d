"""The train command on 1, 2 and 3 hosts with addresses and cables of their own.

Hosts are network namespaces of this machine (benchmarks.hosts): what they share are its cores,
of which each may use one, so no more hosts are faster than there are cores.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.commands import prepare_data, train_command
from benchmarks.hosts import NAME, Hosts, environment, namespace, why_not
from benchmarks.timing import Bench, Cost, median, table

BATCH, STEPS, LEFT_OUT = 48, 24, 4
"""Images and steps of a run; the first few warm up."""
SPEED = re.compile(r"[\d,]+/[\d,]+ images \| ([\d,.]+)/s")


def set_rate(hosts: Hosts, rate: str) -> None:
    """Hold every host's cable to a rate in both directions."""
    for host in range(hosts.number):
        for where, cable in ((namespace(host), "eth0"), (f"{NAME}-net", f"port{host}")):
            shape = f"tc -n {where} qdisc add dev {cable} root tbf rate {rate}"
            subprocess.run([*shape.split(), "burst", "256k", "latency", "200ms"], check=True)


def measure(args: argparse.Namespace) -> None:
    """Images a second by number of hosts: of a run the median over its steps."""
    if problem := why_not():
        sys.exit(f"error: no hosts here: {problem}")
    bench, runs = Bench(args, channels=args.channels, rate=args.rate), 0
    with tempfile.TemporaryDirectory() as place:
        options = f"""
            --dataset digits_lt --track.uri sqlite:///{place}/numbers.db
            --model.channels {args.channels} --train.batch-size {BATCH}
            --train.total-images {STEPS * BATCH} --train.log-every {BATCH}
            --train.sample-every 0 --train.eval-every 0 --train.save-every {1 << 30}
            --eval.extractor none --sample.num-steps 2
        """
        shards, storage = f"{place}/shards", f"{place}/runs"
        prepare_data(f"digits-lt --out {shards}")
        with Hosts(max(args.hosts) + 1, environment(Path(place))) as hosts:
            hosts.start_ray()
            if args.rate != "free":
                set_rate(hosts, args.rate)

            def turn(number: int) -> Cost:
                nonlocal runs
                runs += 1
                wanted = f"{options} --cluster.workers {number}"
                name = f"{number}-{runs}"
                words = train_command(wanted, shards=shards, storage=storage, name=name)
                speeds = [
                    float(s.replace(",", "")) for s in SPEED.findall(hosts.run(0, words, 900))
                ]
                return Cost(BATCH / median(speeds[LEFT_OUT:]))

            variants = {f"{n} hosts": lambda n=n: turn(n) for n in args.hosts}
            for warm_up in variants.values():  # files are read for the first time
                warm_up()
            samples = bench.compare(variants)
    bench.finish(table(samples, under=[f"{min(args.hosts)} hosts"], items=BATCH))
