"""cbdm prepare, python -m data_prep NAME --source DIR --out DIR: a data set as shards."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import absolute_paths
from data_prep.options import DescribeOptions, Options, VerifyOptions
from data_prep.readers import DATASETS


@dataclass(frozen=True, kw_only=True)
class Name:
    dataset: str = ""
    """One of the data sets below (- or _)."""


PREPARE = Command(
    name="prepare",
    about="Write a published data set, or your own images, as WebDataset shards, index and "
    "dataset.json.",
    parts=(Name(), Options()),
    positional=("dataset",),
    short={
        "options": (
            *("dataset", "source", "out", "name", "eval_source", "resolution", "imbalance"),
            *(
                "long_tail",
                "train_list",
                "format",
                "workers",
                "allow_missing",
                "force_overwrite",
            ),
        )
    },
    epilog="data sets:\n" + "\n".join(f"  {n:12} {d.about}" for n, d in DATASETS.items()),
)
VERIFY = Command(
    name="verify",
    about="Compare every byte of a data set with its dataset.json.",
    parts=(VerifyOptions(),),
    positional=("where",),
    short={"options": ("where", "workers")},
)
DESCRIBE = Command(
    name="describe",
    about="Images per class as a table and a picture.",
    parts=(DescribeOptions(),),
    positional=("where",),
    short={"options": ("where", "out")},
)
COMMANDS = (PREPARE, VERIFY, DESCRIBE)


@main_of
def main(argv: Sequence[str]) -> int:
    """Prepare a data set, verify or describe one. The exit status."""
    if argv and argv[0] == "verify":
        verifying = absolute_paths(with_values(VerifyOptions(), VERIFY.read(argv[1:])))
        from data_prep.checking.verify import print_verdicts

        return print_verdicts(verifying)
    if argv and argv[0] == "describe":
        describing = absolute_paths(with_values(DescribeOptions(), DESCRIBE.read(argv[1:])))
        from data_prep.checking.describe import print_tables

        return print_tables(describing)
    typed = PREPARE.read(argv)
    dataset = str(typed.pop("dataset", "")).replace("_", "-")
    if dataset not in DATASETS:
        raise ValueError(
            f"dataset ({dataset}) is not known. Choose from: {', '.join(DATASETS)}. Images of "
            "your own: folder --source DIR."
        )
    options = with_values(Options(), typed)
    if not options.out:
        raise ValueError("--out is missing: the folder or URL that the shards go to.")
    absolute_paths(options)  # a job would lose what goes to its own folder
    from data_prep.prepare import prepare  # after parsing, so that --help is quick

    prepare(dataset, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
