"""cbdm compare, python tune/compare.py: methods at equal compute, each at its own best.

The same command goes on where a comparison was stopped or killed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[0] != ROOT:  # as a script, Python puts this folder there
    sys.path.insert(0, ROOT)

from cbdm_scale.cli.command import Command, main_of  # noqa: E402
from cbdm_scale.storage.json import with_values  # noqa: E402
from cbdm_scale.storage.path_options import absolute_paths  # noqa: E402
from tune.comparison.options import CompareOptions  # noqa: E402
from tune.comparison.protocol import read_protocol  # noqa: E402

COMMAND = Command(
    name="compare",
    about="Compare methods at equal compute, each at its own best stop and guidance strength.",
    parts=(CompareOptions(),),
    short={
        "what": ("protocol", "phase", "rows", "seeds", "extractor"),
        "where": ("data.root", "cluster.storage", "cluster.device", "parallel", "name"),
        "more": ("dry_run",),
    },
)


@main_of
def main(argv: Sequence[str]) -> int:
    """Compare, or print what would be compared. The exit status."""
    options = absolute_paths(with_values(CompareOptions(), COMMAND.read(argv)))
    protocol = read_protocol(options.protocol)
    if options.dry_run:
        from tune.comparison.estimate import dry_run

        dry_run(options, protocol)
        return 0
    from tune.comparison.run import run_comparison

    return run_comparison(options, protocol)


if __name__ == "__main__":
    sys.exit(main())
