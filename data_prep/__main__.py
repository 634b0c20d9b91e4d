"""python -m data_prep NAME --source DIR --out DIR: a published data set as shards."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from data_prep.readers import DATASETS

COMMANDS = {
    "verify": "compare every byte of a data set with its dataset.json",
    "describe": "images per class as a table and a picture",
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Write a published data set as WebDataset shards, index and dataset.json.",
        epilog="data sets:\n"
        + "\n".join(f"  {n:12} {d.about}" for n, d in DATASETS.items())
        + "\n\ncommands instead of a data set:\n"
        + "\n".join(f"  {n:12} {text} (ROOT/NAME)" for n, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("dataset", choices=DATASETS, metavar="NAME", help="one of the data sets below (- or _)")
    add("--source", metavar="DIR", help="the unpacked folder as published")
    add("--list", dest="train_list", metavar="FILE", help="imagenet-lt: ImageNet_LT_train.txt")
    add(
        "--eval-list",
        metavar="FILE",
        help="imagenet-lt: a list of the eval images (default: the folder val)",
    )
    add("--out", metavar="DIR", required=True, help="the shards go to DIR/<name>; or a URL")
    add(
        "--resolution",
        type=int,
        metavar="N",
        help="pixels of a side, for files (default 64; cub200 128)",
    )
    add(
        "--imbalance",
        type=float,
        metavar="X",
        help="smallest class over largest, for the -lt sets (default 0.01)",
    )
    add("--bounding-box", action="store_true", help="cub200: only the square around the bird")
    add("--clean", action="store_true", help="celeba5: images with exactly one of the classes")
    add(
        "--allow-missing",
        type=int,
        metavar="N",
        help="go on without up to N images that are missing or bad (default 0)",
    )
    _add_own(parser)
    add("--seed", type=int, default=0, help="which images stay, and their order (default 0)")
    add("--samples-per-shard", type=int, default=1000, metavar="N", help="default 1000")
    add("--format", default="png", metavar="F", help="png (default), webp (lossless) or jpeg")
    add("--quality", type=int, metavar="Q", help="of --format jpeg, 1 to 100 (default 95)")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="Ray tasks at a time; 0 is this process alone (default: 0 if that takes up to a "
        "minute, else one per CPU)",
    )
    add("--force-overwrite", action="store_true", help="replace DIR/<name> if it differs")
    add("--allow-changed", action="store_true", help="accept files with another md5")
    add(
        "--no-classifier",
        dest="classifier",
        action="store_false",
        help="leave out the small feature classifier that FID without Inception needs",
    )
    return parser


def _add_own(parser: argparse.ArgumentParser) -> None:
    """What is for folder, webdataset and synthetic, and for long tails."""
    add = parser.add_argument
    add("--name", metavar="NAME", help="folder, webdataset, synthetic: what to call it")
    add("--channels", type=int, choices=(1, 3), help="3 for RGB (default), 1 for grey")
    add("--eval-source", metavar="DIR", help="balanced images that metrics compare with")
    add("--label-from", metavar="X", help="webdataset: cls (default) or json:FIELD")
    add("--classes", type=int, metavar="K", help="webdataset, synthetic: how many classes")
    add("--counts", metavar="N", help="synthetic: imagenet_lt, images a class, or a,b,c")
    add("--eval-per-class", type=int, metavar="N", help="synthetic: default up to 50")
    add("--long-tail", type=float, metavar="X", help="cut a tail: smallest class over largest")
    add("--profile", choices=("exp", "step"), help="of the long tail (default exp)")


def _dashes(word: str) -> str:
    """Names of options and data sets take _ for -; values stay as they are."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        return option.replace("_", "-") + equals + value
    return word.replace("_", "-") if word.replace("_", "-") in DATASETS else word


def main(argv: Sequence[str]) -> int:
    from cbdm_scale.storage.remote import refuse_typed_passwords

    try:
        refuse_typed_passwords(argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if argv and argv[0] in COMMANDS:
        return int(import_module(f"data_prep.checking.{argv[0]}").main(argv[1:]))
    arguments = vars(make_parser().parse_args([_dashes(word) for word in argv]))
    from data_prep.options import Options
    from data_prep.prepare import prepare  # after parsing, so that --help is quick

    try:
        prepare(arguments.pop("dataset"), Options(**arguments))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
