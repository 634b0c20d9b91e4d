"""cbdm balance, python -m cbdm_scale.balancing: fill rare classes with generated images.

Read the options, find what there is, generate and filter until the classes are full, write.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cbdm_scale.balancing.options import BalanceOptions
from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.config.schema import Config
from cbdm_scale.pretrained.options import GUIDE, config_of, run_defaults
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.lease import lease
from cbdm_scale.storage.path_options import absolute_paths
from cbdm_scale.storage.wording import prog_of, shorten

if TYPE_CHECKING:  # torch waits until the options are known to be right
    from cbdm_scale.balancing.inputs import Inputs
    from cbdm_scale.balancing.rounds import Found
    from cbdm_scale.data.manifest import Manifest
    from cbdm_scale.pretrained.network import PretrainedNetwork

COMMAND = Command(
    name="balance",
    about="Write a data set of real images and of generated ones that passed filters, so that "
    "rare classes have enough. The same command goes on where it stopped.",
    parts=(BalanceOptions(),),
    short={
        "network": ("run", "weights", "data.root"),
        "data set": ("to", "classes", "out", "dataset", "also", "force_overwrite"),
        "images": (
            "guidance",
            "guidance_mode",
            "guide",
            "seed",
            "sample.name",
            "sample.num_steps",
        ),
        "filters": ("filters", "keep", "classifiers", "extractor", "most", "force"),
        "how": ("dry_run", "cluster.workers", "cluster.device", "precision"),
    },
)


def parse(argv: Sequence[str]) -> tuple[BalanceOptions, "PretrainedNetwork"]:
    """The options, and the network that decides their defaults."""
    typed = COMMAND.read(argv, lambda typed: [usual(config_of(typed.get("run", "")))])
    guided = not typed.keys().isdisjoint(GUIDE)
    given = with_values(BalanceOptions(), typed)
    if not given.out:
        raise ValueError("out is missing: the folder or URL that the data set goes to, --out.")
    pretrained = given.load()
    return absolute_paths(with_values(usual(pretrained.config, guided), typed)), pretrained


def usual(config: Config | None, guided: bool = False) -> BalanceOptions:
    """The defaults for the network of a run; guided: by another network."""
    return BalanceOptions(**run_defaults(config, guided)) if config else BalanceOptions()


def say_need(inputs: "Inputs") -> None:
    """How many images the classes lack, by group, and which have no real image."""
    real, need = inputs.real, inputs.need
    for group in dict.fromkeys(real.groups):
        mine = [c for c, g in enumerate(real.groups) if g == group]
        counts = [real.counts["train"][c] for c in mine]
        print(
            f"{group:<8} {len(mine):,} classes of {min(counts):,} to {max(counts):,} real "
            f"images lack {sum(need[c] for c in mine):,}"
        )
    if lost := [
        n for n, k in zip(real.class_names, real.counts["train"], strict=True) if not k
    ]:
        print(f"note: nothing is made of {shorten(lost)}: without a real image")


def say_cost(inputs: "Inputs") -> None:
    """Calls, time and bytes of the least and of the most images that it may take."""
    import torch

    from cbdm_scale.balancing.writing import needed_bytes
    from cbdm_scale.cluster.progress import duration
    from cbdm_scale.devices import open_device

    plan, options = inputs.plan, inputs.options
    device = open_device(options.cluster.on_gpu)
    net, num = inputs.pretrained.build(device), min(plan.chunk_size, 16)
    x, y = torch.zeros(num, *plan.shape, device=device), torch.zeros(num, dtype=torch.int64)
    level = torch.ones(num, device=device)
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            net(x, level, y.to(device)).sum().item()  # waits
            seconds.append(time.perf_counter() - began)
    guided = options.guidance_mode == "cfg" and options.guidance[0] != 0
    calls = plan.sample.calls * (2 if guided else 1)
    least, most = sum(inputs.need), round(options.most * sum(inputs.need))
    for words, images in (("at least", least), ("at most", most)):
        spent = duration(images * calls * min(seconds) / num)
        size = needed_bytes(inputs, images) / 1e6
        print(
            f"{words} {images:,} images of {calls} calls, {spent} on one worker like this, "
            f"{size:,.1f} MB"
        )


def class_words(inputs: "Inputs", found: "Found", c: int) -> str:
    """Of a class: images taken, made and rejected by which filter, and the thresholds."""
    reasons, limits = found.reasons(c), found.thresholds
    rejected = [f"{n:,} {r}" for r, n in sorted(reasons.items()) if r not in ("", "spare")]
    return (
        f"{found.accepted[c]:,} of {inputs.need[c]:,} taken, {sum(reasons.values()):,} made; "
        f"rejected {', '.join(rejected) or 'none'} (confidence from {limits.label[c]:.3g}, "
        f"distances {limits.near[c]:.3g} to {limits.far[c]:.3g}, by {limits.basis[c]})"
    )


def say_outcome(inputs: "Inputs", found: "Found", manifest: "Manifest", out: str) -> None:
    """What was taken and what is missing, where it is, the next commands."""
    from cbdm_scale.balancing.page import advice
    from cbdm_scale.balancing.writing import PAGE

    for c, name in enumerate(inputs.real.class_names):
        if inputs.need[c]:
            print(f"class {name}: {class_words(inputs, found, c)}")
    for c, count in enumerate(found.accepted):
        if count < inputs.need[c]:
            print(f"short: {advice(inputs, found, c)}")
    print(
        f"\ndata set {out}/{inputs.name} ({manifest.num_images('train'):,} training images, "
        f"{sum(found.accepted):,} of them generated)"
    )
    print(f"page     {out}/{inputs.name}/{PAGE}")
    say_next(inputs, out)


def say_next(inputs: "Inputs", out: str) -> None:
    """What learns from the data set."""
    flip = [] if inputs.pretrained.config.data.flip else ["--data.no-flip"]
    words = ["--dataset", inputs.name, "--data.root", out, *flip]
    print(f"next     {shlex.join([*prog_of('classify').split(), *words])}")


@main_of
def main(argv: Sequence[str]) -> int:
    """Make the data set, or say what it would take. The exit status."""
    options, pretrained = parse(argv)
    from cbdm_scale.balancing.inputs import find_inputs

    inputs = find_inputs(options, pretrained)
    out = options.out.rstrip("/")
    for note in pretrained.notes:
        print(note)
    print(f"network  {pretrained.url}\n{options.one_call_line}", end="")
    print(f"real     {inputs.root}/{inputs.real.name}", flush=True)
    say_need(inputs)
    if options.dry_run:
        say_cost(inputs)
        return 0
    from cbdm_scale.balancing.rounds import make_rounds
    from cbdm_scale.balancing.writing import check_room, missing_forms, what_is_there, write_all

    there = what_is_there(inputs, out)
    if there and not missing_forms(inputs, out):
        print(f"data set {out}/{inputs.name} is there: {there.num_images('train'):,} images")
        say_next(inputs, out)
        return 0
    check_room(inputs, out, sum(inputs.need))
    found = make_rounds(inputs)
    root = Storage(out, "out")
    held = root.child(f".{inputs.name}.balance.tmp")
    new = [held] if root.exists("") else [held, root]
    try:
        with lease(held, f"data set {inputs.name} is being written", "--out or --dataset"):
            manifest = write_all(inputs, found, out, there)
    finally:
        for folder in new:
            folder.remove_if_empty()
    say_outcome(inputs, found, manifest, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
