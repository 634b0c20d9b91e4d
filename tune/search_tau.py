"""cbdm search, python tune/search_tau.py: find tau, p_uncond and Y of a data set.

The same command goes on where a search was stopped or killed; with more --trials it goes on
from its end.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[0] != ROOT:  # as a script, Python puts this folder there
    sys.path.insert(0, ROOT)

from cbdm_scale.cli.command import Command, Typed, main_of, options_of  # noqa: E402
from cbdm_scale.config.run_options import (  # noqa: E402
    RUN_PARTS,
    RUN_SHORT,
    Parsed,
    RunOptions,
    parse_run,
    resolve,
)
from cbdm_scale.config.schema import Config  # noqa: E402
from cbdm_scale.storage.json import with_values  # noqa: E402
from tune.options import SearchConfig, searched_row, with_recall  # noqa: E402
from tune.space import make_space  # noqa: E402

COMMAND = Command(
    name="search",
    about="Search for tau, the probability of dropped labels and the label distribution.",
    parts=(SearchConfig(), *RUN_PARTS),
    short={
        "search": ("trials", "objective", "scheduler", "space", "finalists", "at_once"),
        "what all of its runs share; --name is the search's": (
            *("dataset", "preset", "config", "backbone", "name", "train.total_images"),
            "eval.guidance",
        ),
        "where": RUN_SHORT["where"],
        "more": RUN_SHORT["more"],
    },
)


@dataclass(frozen=True)
class SearchCommand:
    search: SearchConfig
    runs: Parsed
    """What all of its runs share."""
    dry_run: bool

    @property
    def base(self) -> Config:
        """That, as a configuration."""
        return self.runs.config


def parse(argv: Sequence[str]) -> SearchCommand:
    """The options of a search, and those of its runs, which start from the data set's row."""

    def runs(typed: Typed) -> Parsed:
        parsed = parse_run({name: typed[name] for name in typed if name not in own})
        return replace(parsed, base=searched_row(parsed.base))

    own = options_of([SearchConfig()])
    typed = COMMAND.read(argv, lambda t: [SearchConfig(), runs(t).base, RunOptions()])
    search = with_values(SearchConfig(), {name: typed[name] for name in typed if name in own})
    return SearchCommand(search, runs(typed), typed.get("dry_run", False))


@main_of
def main(argv: Sequence[str]) -> int:
    """Search, or print what would be searched. The exit status."""
    command = parse(argv)
    with command.runs.naming_the_file():
        return start(command)


def start(command: SearchCommand) -> int:
    """What was typed, done. The exit status."""
    base = with_recall(command.search, resolve(command.base))
    if base.init_from:
        raise ValueError(
            f"init_from ({base.init_from}): the trials of a search start from random weights. "
            "Leave it out, and fine-tune with the winner's file."
        )
    if not (base.cluster.workers or command.search.gpus_per_trial):
        raise ValueError(
            "cluster.workers (0): the trials of a search are processes of Ray. Try "
            "--cluster.workers 1, which has the same bits."
        )
    space = make_space(command.search.space, base)
    from tune.identity import describe_search
    from tune.run import run_search

    if command.dry_run:
        for name, words in describe_search(command.search, base, space).items():
            print(f"{name}: {words}")
        return 0
    return run_search(command.search, base, space)


if __name__ == "__main__":
    sys.exit(main())
