"""python -m cbdm_scale.sample: images from a trained network, on all workers of a cluster.

Parse, check everything that can be checked, then one call each: make what is missing of the
set, draw its grid, give it out in the form that was asked for.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from cbdm_scale.cluster import PoolConfig
from cbdm_scale.config.schema import find_option
from cbdm_scale.data.manifest import Manifest, canonical_name
from cbdm_scale.generation import export
from cbdm_scale.generation.generate import make_missing
from cbdm_scale.generation.plan import SetPlan, plan_set
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.pretrained.loading import load_pretrained, named_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork, find_data
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig, check_mode
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import refuse_typed_passwords

PROG = "python -m cbdm_scale.sample"


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The run's own configuration decides the defaults, once --run is given."""

    run: str = ""
    """A run's folder or URL (its newest whole checkpoint), a checkpoint in it, an MLflow model
    (models:/NAME@ALIAS, runs:/ID/PATH), or a checkpoint of the paper's own code (.pt)."""

    num_images: int = 10_000
    """Images of the set. Section 4.1: 50,000. More of the same set later keeps these."""

    guidance: float = 1.0
    """omega of (1 + omega) e - omega e_null: 0 is none. In the other convention, s e +
    (1 - s) e_null, it is s = 1 + omega."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    labels: str = "cyclic"
    """cyclic: the classes in turn, equally many of each. train, sqrt, bal or a number: drawn,
    with probabilities proportional to the training counts to the power 1, 1/2, 0 or that."""

    classes: str = ""
    """Only these classes, by number, such as 3,7; "" is all."""

    seed: int = 0
    """Every image's random numbers follow from the seed and its number in the set."""

    chunk_size: int = 100
    """Images made at once. Another size changes an image's last bits, no more."""

    format: export.Format = "png"
    """png: a folder a class. npz: arr_0 (N, H, W, C) uint8 and arr_1, the layout of ADM.
    shards: a data set to train on."""

    weights: str = "ema"
    """ema: the weights' average. raw: as they were trained. power:WIDTH: the average of this
    relative width, such as power:0.1, of a run with --train.posthoc-every."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast, faster where the hardware has it, another rounding."""

    out: str = ""
    """Folder or URL of sets; "" is samples/ in the run, ~/cbdm_scale/samples without a run."""

    dataset: str = ""
    """Name of the data set that --format shards makes; "" is the run's own."""

    data_root: str = ""
    """Where the training set is now (class names and counts); "" is where the run found it."""

    resolution: int | None = None
    """Height of the images, for a .pt file that does not say it."""

    tracking_uri: str = ""
    """MLflow server or database of a model; "" is MLFLOW_TRACKING_URI, else mlflow.db in
    ~/cbdm_scale/runs."""

    sample: SamplerConfig = field(default_factory=SamplerConfig)
    cluster: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        for name, value in [("num_images", self.num_images), ("chunk_size", self.chunk_size)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}. Try 1000.")
        check_mode("guidance_mode", self.guidance_mode)
        if self.guidance < 0:
            raise ValueError(
                f"guidance must be at least 0, got {self.guidance}: 0 is no guidance, the "
                "paper uses 0.8 to 1.6."
            )


def parse(argv: Sequence[str]) -> tuple[SampleOptions, PretrainedNetwork | None]:
    """The options and where the network comes from, which decides the options' defaults."""
    base, origin = SampleOptions(), named_pretrained(argv)
    if origin:
        config = origin.config
        base = replace(
            base,
            run=find_option(argv, "run", ""),
            num_images=config.eval.num_images,
            guidance=config.eval.omegas[0],
            guidance_mode=config.eval.guidance_mode,
            seed=config.seed,
            chunk_size=config.eval.chunk_size,
            sample=config.sample,
        )

    def command(
        options: Annotated[SampleOptions, tyro.conf.arg(name="")] = base,
    ) -> SampleOptions:
        """Make images from a trained network. The same command goes on where it stopped."""
        return options

    return tyro.cli(command, args=list(argv), prog=PROG), origin


def make_plan(
    options: SampleOptions, origin: PretrainedNetwork, real: Manifest | None
) -> SetPlan:
    """Everything that decides the images; ValueError if options do not fit the network."""
    return plan_set(
        origin.spec,
        origin.config.noise,
        checkpoint=origin.checkpoint,
        weights_sha256=origin.weights_sha256,
        counts=real.counts["train"] if real else None,
        omega=options.guidance,
        labels=options.labels,
        classes=options.classes,
        seed=options.seed,
        chunk_size=options.chunk_size,
        precision=options.precision,
        sample=options.sample,
        guidance_mode=options.guidance_mode,
    )


def same_command(argv: Sequence[str], form: export.Format) -> str:
    """The command with another --format: its images are there already."""
    words, skip = [PROG], False
    for word in argv:
        if not skip and not word.startswith("--format"):
            words.append(shlex.quote(word))
        skip = word == "--format"
    return " ".join([*words, "--format", form])


def give_out(
    store: ChunkStore,
    options: SampleOptions,
    origin: PretrainedNetwork,
    real: Manifest | None,
    root: str,
    argv: Sequence[str],
) -> tuple[str, str]:
    """Write the form that was asked for; its place, and the next command."""
    chunks = store.plan.chunks(options.num_images)
    name = {
        "png": f"png-{options.num_images}",
        "npz": f"images-{options.num_images}.npz",
        "shards": f"shards-{options.num_images}",
    }[options.format]
    following = same_command(argv, "npz")
    with export.staging(store.folder, name) as target:
        match options.format:
            case "png":
                names = real.class_names if real else None
                export.write_png(store, chunks, target, names)
            case "npz":
                export.write_npz(store, chunks, target)
                following = same_command(argv, "shards")
            case "shards":
                dataset = canonical_name(options.dataset or origin.config.dataset or "made")
                export.write_shards(
                    store, chunks, target, name=dataset, real=real, root=root, say=print
                )
                following = (
                    f"python -m cbdm_scale.train --dataset {dataset} "
                    f"--data.root {store.folder.path(name)} --name on-generated"
                )
    return store.folder.path(name), following


def start(options: SampleOptions, origin: PretrainedNetwork, argv: Sequence[str]) -> int:
    """Check, make, give out, and say how it went. The exit status."""
    real, root = find_data(origin, options.data_root)
    plan = make_plan(options, origin, real)
    out = Storage(options.out or origin.samples)
    out.check_writable()
    store = ChunkStore(out.child(plan.name), plan)
    store.write_plan()
    for note in origin.notes:
        print(note)
    print(f"network  {origin.url}\nset      {store.folder.url}", flush=True)
    made = make_missing(store, origin.weights, options.num_images, options.cluster)
    counts = real.counts["train"] if real else None
    grid = f"grid-{options.num_images}.png"
    store.folder.write_bytes(grid, export.grid(store, plan.chunks(options.num_images), counts))
    place, following = give_out(store, options, origin, real, root, argv)
    speed = f", {made.rate:.1f}/s" if made.done else ""
    print(f"\nimages   {place} ({options.num_images:,} images, {made.done:,} made now{speed})")
    print(f"grid     {store.folder.path(grid)}")
    print(f"next     {following}")
    return 0


def main(argv: Sequence[str]) -> int:
    try:
        refuse_typed_passwords(argv)
        options, origin = parse(argv)
        return start(options, origin or load_pretrained(options.run), argv)
    except KeyboardInterrupt:
        print("\nstopped: what is finished is kept, the same command goes on", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
