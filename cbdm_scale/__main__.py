"""cbdm, python -m cbdm_scale: one name for every command, each a module of its own.

Nothing is imported but the command that is named.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from cbdm_scale import __version__
from cbdm_scale.cli.command import main_of

COMMANDS = {
    "prepare": (
        "data_prep.__main__",
        "write a data set as shards: a published one or your own",
    ),
    "verify": ("data_prep.__main__", "compare every byte of a data set with its dataset.json"),
    "describe": ("data_prep.__main__", "images per class as a table and a picture"),
    "train": ("cbdm_scale.train", "train a class-balancing diffusion model"),
    "sample": ("cbdm_scale.sample", "make images from a trained network"),
    "evaluate": ("cbdm_scale.evaluate", "every number of a run's images, with a report"),
    "export": ("cbdm_scale.export", "write a network as safetensors, and for diffusers"),
    "classify": ("cbdm_scale.classify", "train a classifier on real and generated images"),
    "balance": ("cbdm_scale.balancing.__main__", "fill rare classes with generated images"),
    "search": ("tune.search_tau", "search for tau, p_uncond and the label distribution"),
    "compare": ("tune.compare", "compare methods at equal compute, each at its own best"),
    "runs": ("cbdm_scale.runs.__main__", "list the runs, and delete their old checkpoints"),
    "preflight": ("cbdm_scale.preflight", "ask the nodes of a cluster if a run would work"),
    "completion": ("", "print what makes a shell complete these words: bash, zsh, fish"),
}


@main_of
def main(argv: Sequence[str]) -> int:
    """Hand the words to the command that the first of them names. The exit status."""
    name, words = (argv[0], argv[1:]) if argv else ("", [])
    if name == "completion":
        from cbdm_scale.cli.completion import completion_script

        modules = [
            import_module(m) for m in dict.fromkeys(m for m, _ in COMMANDS.values() if m)
        ]
        commands = [c for m in modules for c in getattr(m, "COMMANDS", None) or [m.COMMAND]]
        print(completion_script(commands, words[0] if words else "bash"))
        return 0
    if name in COMMANDS:
        of_data = [name] if name in ("verify", "describe") else []
        return int(import_module(COMMANDS[name][0]).main([*of_data, *words]))
    if name not in ("", "-h", "--help", "--version"):
        raise ValueError(f"{name} is no command. Choose from: {', '.join(COMMANDS)}.")
    if name == "--version":
        print(f"cbdm_scale {__version__}")
        return 0
    print("usage: cbdm COMMAND [options]\n")
    print("\n".join(f"  {name:12}{about}" for name, (_, about) in COMMANDS.items()))
    print("\ncbdm COMMAND --help says what it takes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
