"""The train command on 1, 2 and 3 hosts with addresses and cables of their own.

Hosts are network namespaces of this machine (benchmarks.hosts): what they share are its cores,
of which each may use one, so no more hosts are faster than there are cores.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.commands import prepare_data, speeds, train_command
from benchmarks.hosts import Hosts, environment, why_not
from benchmarks.timing import Bench, Cost, arguments, table

BATCH, STEPS, LEFT_OUT = 48, 24, 4
"""Images and steps of a run; the first few warm up."""


def main() -> None:
    """Images a second by number of hosts: of a run the median over its steps."""
    args = arguments(__doc__, repetitions=3, hosts=[1, 2, 3], channels=32)
    if problem := why_not():
        sys.exit(f"error: no hosts here: {problem}")
    bench, runs = Bench(args, channels=args.channels), 0
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

            def turn(number: int) -> Cost:
                nonlocal runs
                runs += 1
                wanted = f"{options} --cluster.workers {number}"
                name = f"{number}-{runs}"
                words = train_command(wanted, shards=shards, storage=storage, name=name)
                return Cost(BATCH / median(speeds(hosts.run(0, words, 900))[LEFT_OUT:]))

            variants = {f"{n} hosts": partial(turn, n) for n in args.hosts}
            for warm_up in variants.values():  # files are read for the first time
                warm_up()
            samples = bench.compare(variants)
    bench.finish(table(samples, under=[f"{min(args.hosts)} hosts"], items=BATCH))
