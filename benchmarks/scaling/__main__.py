"""The command: see the package's docstring."""

import argparse

from benchmarks.timing import add_options


def run_measure(args: argparse.Namespace) -> None:
    from benchmarks.scaling.measure import measure

    measure(args)


def run_predict(args: argparse.Namespace) -> None:
    from benchmarks.scaling.predict import run

    run(args.hidden, args.picture)


def run_reporters(args: argparse.Namespace) -> None:
    from benchmarks.scaling.reporters import table

    print(table(args.workers))


def run_hosts(args: argparse.Namespace) -> None:
    from benchmarks.scaling.over_hosts import measure

    measure(args)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure", help="1, 2 and 3 processes on this machine")
    add_options(one, repetitions=30)
    one.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    one.add_argument("--rates", nargs="+", default=["free"], help="free, or 1gbit and the like")
    one.add_argument("--channels", type=int, default=64, help="of the U-Net; the paper's: 128")
    one.add_argument("--images", type=int, default=2, help="of a rank in a step")
    one.set_defaults(run=run_measure)
    two = commands.add_parser("predict", help="8 to 512 GPUs, every preset")
    two.add_argument("--hidden", type=float, default=1.0, help="measured share, see measure")
    two.add_argument("--picture", default="", help="folder for scaling.png")
    two.set_defaults(run=run_predict)
    three = commands.add_parser("reporters", help="calls and requests by number of workers")
    three.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    three.set_defaults(run=run_reporters)
    four = commands.add_parser("hosts", help="the train command on 1, 2 and 3 hosts (root)")
    add_options(four, repetitions=3)
    four.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3])
    four.add_argument("--rate", default="free", help="of every host's cable: free, or 1gbit")
    four.add_argument("--channels", type=int, default=32, help="of the digits' U-Net")
    four.set_defaults(run=run_hosts)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
