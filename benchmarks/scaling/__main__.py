"""The command: see the package's docstring."""

import argparse
import os
import sys

import torch

from benchmarks.scaling import measure as m
from benchmarks.scaling.ranks import Measured, slow_loopback
from benchmarks.timing import processor


def run_measure(args: argparse.Namespace) -> None:
    about: dict[str, object] = {
        "processor": processor(),
        "torch": torch.__version__,
        "repetitions": args.repetitions,
        "channels": args.channels,
        "images a rank": args.images,
        "load average before": os.getloadavg()[0],
    }
    groups: dict[str, list[Measured]] = {}
    for rate in args.rates:
        with slow_loopback("" if rate == "free" else rate) as command:
            for ranks in args.ranks:
                if rate != "free" and ranks == 1:
                    continue
                print(f"{ranks} ranks, loopback {rate}", flush=True)
                measured = m.measure(
                    ranks,
                    repetitions=args.repetitions,
                    channels=args.channels,
                    images=args.images,
                    everything=rate == args.rates[0] and ranks == 2,
                    command=command,
                )
                groups.setdefault(rate, []).append(measured)
                if args.raw:
                    m.keep(args.raw, about, groups)
    about["load average after"] = os.getloadavg()[0]
    for key, value in about.items():
        print(f"{key}: {value}")
    for rate, measured_there in groups.items():
        print(f"\nloopback: {rate}\n")
        print(m.wire_table(measured_there), "\n")
        for measured in measured_there:
            print(m.time_table(measured), "\n")
        constants = m.fit(measured_there)
        print(
            f"fitted: {constants.bandwidth / 1e6:.0f} MB/s a rank, "
            f"{constants.latency * 1e6:.0f} us a hop, hidden {constants.hidden:.0%}\n"
        )
        print(m.check_table(measured_there, constants))


def run_predict(args: argparse.Namespace) -> None:
    from benchmarks.scaling import predict as p
    from benchmarks.scaling.counts import count_presets
    from benchmarks.scaling.published import PLACES

    counted = [p.with_hidden(c, args.hidden) for c in count_presets()]
    print(p.assumptions(args.hidden), "\n")
    print(p.presets_table(counted))
    for place in PLACES:
        print(f"\n{place.name}: the preset's batch shared out\n")
        print(p.fixed_table(counted, place))
        print(f"\n{place.name}: the preset's batch on every GPU\n")
        print(p.grown_table(counted, place))
    by_name = {name: c for c in counted for name in c.names}
    for name in ("cifar100_lt cbdm", "imagenet_lt cbdm", "cifar100_lt cbdm_edm"):
        print("\n" + p.recipe_table(by_name[name]))
    if args.picture:
        shown = [by_name[n] for n in p.SHOWN]
        print(f"\n{p.draw(shown, args.picture)}")


def run_reporters(args: argparse.Namespace) -> None:
    from benchmarks.scaling.reporters import table

    print(table(args.workers))


def run_hosts(args: argparse.Namespace) -> None:
    from benchmarks.scaling.over_hosts import run

    print(f"processor: {processor()}\nload average before: {os.getloadavg()[0]}")
    print(run(args.hosts, args.repetitions, args.channels, args.rate))
    print(f"load average after: {os.getloadavg()[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure", help="1, 2 and 3 processes on this machine")
    one.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    one.add_argument("--rates", nargs="+", default=["free"], help="free, or 1gbit and the like")
    one.add_argument("--repetitions", type=int, default=30)
    one.add_argument("--channels", type=int, default=64, help="of the U-Net; the paper's: 128")
    one.add_argument("--images", type=int, default=2, help="of a rank in a step")
    one.add_argument("--raw", default="", help="JSON file for every single figure")
    one.set_defaults(run=run_measure)
    two = commands.add_parser("predict", help="8 to 512 GPUs, every preset")
    two.add_argument("--hidden", type=float, default=1.0, help="measured share, see measure")
    two.add_argument("--picture", default="", help="folder for scaling.png")
    two.set_defaults(run=run_predict)
    three = commands.add_parser("reporters", help="calls and requests by number of workers")
    three.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    three.set_defaults(run=run_reporters)
    four = commands.add_parser("hosts", help="the train command on 1, 2 and 3 hosts (root)")
    four.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3])
    four.add_argument("--rate", default="free", help="of every host's cable: free, or 1gbit")
    four.add_argument("--repetitions", type=int, default=3)
    four.add_argument("--channels", type=int, default=32, help="of the digits' U-Net")
    four.set_defaults(run=run_hosts)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    sys.exit(main())
