"""What makes a shell complete ``cbdm``."""

import argparse
from collections.abc import Sequence

import shtab

from cbdm_scale.cli.command import Command, options_of


def completion_script(commands: Sequence[Command], shell: str) -> str:
    """What makes a shell complete ``cbdm``: its commands, their options and choices."""
    if shell not in shtab.SUPPORTED_SHELLS:
        shells = ", ".join(shtab.SUPPORTED_SHELLS)
        raise ValueError(
            f"completion ({shell}) is made for {shells}. Try cbdm completion bash."
        )
    parser = argparse.ArgumentParser(prog="cbdm")
    names = parser.add_subparsers()
    for command in commands:
        parents = [command.parser(options_of(command.parts).values(), choices=True)]
        made = names.add_parser(
            command.name, parents=parents, add_help=False, help=command.about
        )
        made.add_argument("--help", action="store_true")
        made.add_argument("--help-all", action="store_true")
    names.add_parser("completion").add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    script = str(shtab.complete(parser, shell))
    # Where bash finds no word of the command, it completes the names of files.
    return script.replace("complete -o bashdefault ", "complete -o bashdefault -o default ")
