"""cbdm sample, python -m cbdm_scale.sample: images from a trained network, on all workers.

Read the options, check everything that can be checked, then one call each: make what is missing
of the set, draw its grid, give it out in the form that was asked for.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cbdm_scale.cli.command import Command, Typed, main_of
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import Strength
from cbdm_scale.data.manifest import Manifest, canonical_name
from cbdm_scale.pretrained.options import GUIDE, GenerationOptions, config_of, run_defaults
from cbdm_scale.storage.checks import PositiveInt
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.lease import lease
from cbdm_scale.storage.path_options import Folder, absolute_paths
from cbdm_scale.storage.wording import prog_of

if TYPE_CHECKING:  # torch waits until the options are known to be right
    from cbdm_scale.generation.store import ChunkStore
    from cbdm_scale.pretrained.network import PretrainedNetwork


@dataclass(frozen=True, kw_only=True)
class SampleOptions(GenerationOptions):
    """The run's own configuration decides the defaults, once --run is given."""

    num_images: PositiveInt = 10_000
    """Images of the set. Section 4.1: 50,000. More of the same set later keeps these."""

    labels: str = "cyclic"
    """cyclic: the classes in turn, equally many of each. train, sqrt, bal or a number: drawn,
    with probabilities proportional to the training counts to the power 1, 1/2, 0 or that."""

    classes: tuple[str, ...] = ()
    """Only these classes, by name or else by number, such as 3 7; none is all."""

    format: Literal["png", "npz", "shards"] = "png"
    """png: a folder a class. npz: arr_0 (N, H, W, C) uint8 and arr_1, the layout of ADM.
    shards: a data set to train on."""

    out: Folder = ""
    """Folder or URL of sets; "" is samples/ in the run, ~/cbdm_scale/samples without a run."""

    dataset: str = ""
    """Name of the data set that --format shards makes; "" is the run's own."""


COMMAND = Command(
    name="sample",
    about="Make images from a trained network. The same command goes on where it stopped.",
    parts=(SampleOptions(),),
    short={
        "network": ("run", "weights", "data.root", "track.uri"),
        "images": (
            *("num_images", "guidance", "guidance_mode", "guide", "labels", "classes", "seed"),
            *("sample.name", "sample.num_steps", "sample.eta"),
        ),
        "what is written": ("format", "out", "dataset"),
        "how": ("cluster.workers", "cluster.device", "precision", "chunk_size"),
    },
)


def parse(argv: Sequence[str]) -> tuple[SampleOptions, "PretrainedNetwork", Typed]:
    """The options, the network that decides their defaults, and what was typed."""
    typed = COMMAND.read(argv, lambda typed: [usual(config_of(typed.get("run", "")))])
    pretrained = with_values(SampleOptions(), typed).load()
    guided = not typed.keys().isdisjoint(GUIDE)
    options = absolute_paths(with_values(usual(pretrained.config, guided), typed))
    return options, pretrained, typed


def usual(config: Config | None, guided: bool = False) -> SampleOptions:
    """The defaults for the network of a run; guided: by another network."""
    if not config:
        return SampleOptions()
    return SampleOptions(num_images=config.eval.num_images, **run_defaults(config, guided))


def train_command(pretrained: "PretrainedNetwork", dataset: str, root: str) -> str:
    """What trains on generated images as the network was trained on real ones."""
    words = [*prog_of("train").split(), "--dataset", dataset, "--data.root", root]
    if pretrained.config.preset in ("ddpm", "small"):  # rows of any data set
        words += ["--preset", pretrained.config.preset]
    storage = pretrained.folder.rpartition("/")[0]
    if storage not in ("", Storage(Config().cluster.storage).url):
        words += ["--cluster.storage", storage]
    return shlex.join([*words, "--name", "on-generated"])


def give_out(
    store: "ChunkStore",
    options: SampleOptions,
    pretrained: "PretrainedNetwork",
    real: Manifest | None,
    root: str,
    typed: Typed,
) -> tuple[str, str]:
    """Write the form that was asked for; its place, and the next command."""
    from cbdm_scale.formats import files, shards

    chunks = store.plan.chunks(options.num_images)
    class_names = pretrained.names_with(real)
    name = {
        "png": f"png-{options.num_images}",
        "npz": f"images-{options.num_images}.npz",
        "shards": f"shards-{options.num_images}",
    }[options.format]
    following = COMMAND.line(typed, format="npz")
    with files.staging(store.folder, name) as target:
        match options.format:
            case "png":
                files.write_png(store, chunks, target, class_names)
            case "npz":
                files.write_npz(store, chunks, target)
                following = COMMAND.line(typed, format="shards")
            case "shards":
                dataset = canonical_name(options.dataset or pretrained.config.dataset or "made")
                shards.write_shards(
                    *(store, chunks, target),
                    name=dataset,
                    class_names=class_names,
                    real=real,
                    root=root,
                    log=print,
                )
                following = train_command(pretrained, dataset, store.folder.path(name))
    return store.folder.path(name), following


def make_set(
    options: SampleOptions,
    pretrained: "PretrainedNetwork",
    omega: Strength,
    typed: Typed,
    guide: "PretrainedNetwork | None" = None,
) -> None:
    """Check, make one set, give it out, and say how it went."""
    from cbdm_scale.formats import files
    from cbdm_scale.generation.chunks import make_missing_chunks
    from cbdm_scale.generation.store import ChunkStore
    from cbdm_scale.pretrained.network import find_training_data

    real, root = find_training_data(pretrained, options.data.root)
    plan = options.plan(
        *(pretrained, real, omega, guide), labels=options.labels, classes=options.classes
    )
    out = Storage(options.out or pretrained.samples, "out")
    out.check_writable()
    store = ChunkStore(out.child(plan.name), plan)
    for note in pretrained.notes:
        print(note)
    by = f"guide    {guide.url}\n" if guide else options.one_call_line
    print(f"network  {pretrained.url}\n{by}set      {store.folder.url}", flush=True)
    weights = pretrained.weights, guide.weights if guide else b""
    with lease(store.folder, f"set {plan.name} is being made", "--out"):
        store.write_plan()
        made = make_missing_chunks(store, *weights, options.num_images, options.cluster)
        grid = f"grid-{options.num_images}.png"
        pixels = files.grid(store, plan.chunks(options.num_images), real)
        store.folder.write_bytes(grid, pixels)
        place, following = give_out(store, options, pretrained, real, root, typed)
    speed = f", {made.rate:.1f}/s" if made.done else ""
    print(f"\nimages   {place} ({options.num_images:,} images, {made.done:,} made now{speed})")
    print(f"grid     {store.folder.path(grid)}")
    print(f"next     {following}")


@main_of
def main(argv: Sequence[str]) -> int:
    """Make a set at every strength of guidance. The exit status."""
    options, pretrained, typed = parse(argv)
    guide = options.load_guide(pretrained)
    for omega in options.guidance:
        make_set(options, pretrained, omega, typed, guide)
    return 0


if __name__ == "__main__":
    sys.exit(main())
