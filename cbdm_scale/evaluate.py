"""cbdm evaluate: read the options, find what there is, compute what is not, write, log, say."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cbdm_scale.cli.command import Command, Typed, main_of
from cbdm_scale.config.schema import Config
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.pretrained.options import GUIDE, config_of, run_defaults
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.lease import lease
from cbdm_scale.storage.path_options import absolute_paths

if TYPE_CHECKING:  # torch waits until the options are known to be right
    from cbdm_scale.evaluation.results import Evaluation
    from cbdm_scale.pretrained.network import PretrainedNetwork

COMMAND = Command(
    name="evaluate",
    about="Every number of a run's images, with a report. The same command goes on where it "
    "stopped, and says again what it found.",
    parts=(EvaluateOptions(),),
    short={
        "network": ("run", "weights", "ema_sweep", "data.root", "track.uri"),
        "images": (
            *("num_images", "guidance", "guidance_mode", "guide", "samples", "seed"),
            *("sample.name", "sample.num_steps"),
        ),
        "numbers": ("extractor", "extractor_weights", "resize", "memorisation", "against"),
        "how": ("out", "features", "cluster.workers", "cluster.device", "precision"),
    },
)


def parse(argv: Sequence[str]) -> tuple[EvaluateOptions, "PretrainedNetwork", Typed]:
    """The options, the network that decides their defaults, and what was typed."""
    typed = COMMAND.read(
        argv, lambda typed: [usual(config_of(typed.get("run", "")), typed.get("samples", ""))]
    )
    pretrained = with_values(EvaluateOptions(), typed).load()
    guided = not typed.keys().isdisjoint(GUIDE)
    base = usual(pretrained.config, typed.get("samples", ""), guided)
    return absolute_paths(with_values(base, typed)), pretrained, typed


def usual(config: Config | None, samples: str, guided: bool = False) -> EvaluateOptions:
    """The defaults for the network of a run, and for images that are there already.

    guided: by another network.
    """
    if not config:
        return EvaluateOptions()
    known = config.eval.extractor != "none"
    own = run_defaults(config, guided) | {"seed": config.eval_seed}
    if not samples:
        own["guidance"] = config.eval.guidance
    return EvaluateOptions(
        **own,
        samples=samples,
        num_images=0 if samples else config.eval.num_images,
        extractor=(config.eval.extractor,) if known else EvaluateOptions.extractor,
        extractor_weights=config.eval.extractor_weights,
        allow_weights=config.eval.allow_weights,
        resize=config.eval.resize,
    )


OF_SAMPLE = (
    *("run", "weights", "resolution", "data.root", "track.uri", "guidance_mode", "precision"),
    *("seed", "sample.name", "sample.num_steps", "sample.eta", *GUIDE),
)
"""Options that find the network and say how to sample from it, alike in both commands."""


def start(options: EvaluateOptions, pretrained: "PretrainedNetwork", typed: Typed) -> int:
    """One evaluation or a sweep, and its last words. The exit status."""
    from cbdm_scale.evaluation import ema_sweep

    if options.widths:
        ema_sweep.start(options, pretrained, partial(evaluate, typed=typed))
        return 0
    evaluation = evaluate(options, pretrained, typed)
    if not options.against:
        print("compare  the same command with --against and the folder of another run")
    print(f"next     {following(options, evaluation, typed)}")
    return 0


def evaluate(
    options: EvaluateOptions, pretrained: "PretrainedNetwork", typed: Typed
) -> "Evaluation":
    """Check, compute, write, log, and say how it went."""
    from cbdm_scale.evaluation import publish, summary
    from cbdm_scale.evaluation.compute import check_extractors, compute_evaluation
    from cbdm_scale.evaluation.inputs import find_inputs
    from cbdm_scale.evaluation.store import METRICS, read_evaluation, write_evaluation

    inputs = find_inputs(options, pretrained)
    against = publish.find_against(inputs)
    home = inputs.home
    for note in pretrained.notes:
        print(note)
    by = "" if options.samples else options.one_call_line
    print(f"network  {pretrained.url}\n{by}numbers  {home.url}", flush=True)
    evaluation, unlogged = read_evaluation(home), ""
    if not (
        evaluation and publish.has_report(home, against) and publish.is_logged(home, inputs)
    ):
        if evaluation is None:
            check_extractors(inputs)
        home.check_writable()
        with lease(home, f"evaluation {inputs.id} is being made", ""):
            evaluation = read_evaluation(home)  # who had it before may have made it
            if evaluation is None:
                evaluation = compute_evaluation(inputs)
                about = {"made": time.time(), "command": COMMAND.line(typed)}
                write_evaluation(home, evaluation, about)
            if not publish.has_report(home, against):
                publish.write_report_files(home, inputs, evaluation, against)
            unlogged = publish.log_to_mlflow(home, inputs, evaluation)
    print("\n" + "\n".join(summary.table(evaluation)))
    print(f"\nmetrics  {home.path(METRICS)}\nreport   {home.path(publish.REPORT)}")
    if unlogged:
        print(f"waiting  {unlogged} The same command logs them.")
    return evaluation


def following(options: EvaluateOptions, evaluation: "Evaluation", typed: Typed) -> str:
    """The next command: make the set that was best; after given images, evaluate its own."""
    if options.samples:
        return COMMAND.line(typed, samples=None)
    found = {name: typed[name] for name in OF_SAMPLE if name in typed}
    return replace(COMMAND, name="sample").line(found, guidance=(evaluation.best.omega,))


@main_of
def main(argv: Sequence[str]) -> int:
    """Evaluate as the options say, and name the next command. The exit status."""
    return start(*parse(argv))


if __name__ == "__main__":
    sys.exit(main())
