"""python tune/search_tau.py: find tau, the probability of dropped labels and Y for a data set.

The same command goes on where a search was stopped or killed; with more --trials it goes on
from its end.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[0] != ROOT:  # as a script, Python puts this folder there
    sys.path.insert(0, ROOT)

from cbdm_scale.config.preset_file import starting_point  # noqa: E402
from cbdm_scale.config.schema import Config, check_model_options  # noqa: E402
from cbdm_scale.runs.command_line import resolve  # noqa: E402
from cbdm_scale.storage.remote import refuse_typed_passwords  # noqa: E402
from tune.options import SearchConfig, searched_row, with_recall  # noqa: E402
from tune.space import make_space  # noqa: E402


@dataclass(frozen=True)
class Command:
    search: SearchConfig
    base: Config
    dry_run: bool


def parse(argv: Sequence[str]) -> Command:
    """The options of a search, and those of its runs, which start from the data set's row."""
    row, usual = searched_row(starting_point(argv)), SearchConfig()

    def command(
        search: Annotated[SearchConfig, tyro.conf.arg(name="")] = usual,
        base: Annotated[Config, tyro.conf.arg(name="")] = row,
        dry_run: bool = False,
    ) -> Command:
        """Search for tau, the probability of dropped labels and the label distribution.

        Args:
            search: the search
            base: what all of its runs share; --name is that of the search
            dry_run: print what would be searched and what it would cost, and stop
        """
        return Command(search, base, dry_run)

    check_model_options(argv, row.backbone)
    return tyro.cli(
        command,
        args=list(argv),
        prog="python tune/search_tau.py",
        config=(tyro.conf.AvoidSubcommands,),  # the backbone has been chosen
    )


def main(argv: Sequence[str]) -> int:
    try:
        refuse_typed_passwords(argv)
        command = parse(argv)
        base = with_recall(command.search, resolve(command.base))
        if base.init_from:
            raise ValueError(
                f"init_from ({base.init_from}): the trials of a search start from random "
                "weights. Leave it out, and fine-tune with the winner's preset."
            )
        space = make_space(command.search.space, base)
        from tune.identity import describe_search
        from tune.run import run_search

        if command.dry_run:
            for name, words in describe_search(command.search, base, space).items():
                print(f"{name}: {words}")
            return 0
        return run_search(command.search, base, space)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
