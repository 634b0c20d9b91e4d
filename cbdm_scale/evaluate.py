"""The evaluate command: parse, find what there is, compute what is not, write, log, say."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import tyro

from cbdm_scale.config.schema import find_option
from cbdm_scale.evaluation import publish, summary, sweep
from cbdm_scale.evaluation.compute import compute
from cbdm_scale.evaluation.inputs import find_inputs
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.records import METRICS, read_evaluation, write_evaluation
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.pretrained.loading import load_pretrained, named_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.storage.remote import refuse_typed_passwords


def parse(argv: Sequence[str]) -> tuple[EvaluateOptions, PretrainedNetwork | None]:
    """The options and where the network comes from, which decides the options' defaults."""
    base, origin = EvaluateOptions(), named_pretrained(argv)
    if origin:
        config = origin.config
        samples = find_option(argv, "samples", "")
        omegas = config.eval.omegas[: 1 if samples else None]
        known = config.eval.extractor != "none"
        base = replace(
            base,
            run=find_option(argv, "run", ""),
            samples=samples,
            num_images=0 if samples else config.eval.num_images,
            guidance=",".join(f"{omega:g}" for omega in omegas),
            guidance_mode=config.eval.guidance_mode,
            extractor=config.eval.extractor if known else base.extractor,
            extractor_weights=config.eval.weights,
            allow_weights=config.eval.allow_weights,
            resize=config.eval.resize,
            seed=config.seed,
            chunk_size=config.eval.chunk_size,
            sample=config.sample,
        )

    def command(
        options: Annotated[EvaluateOptions, tyro.conf.arg(name="")] = base,
    ) -> EvaluateOptions:
        """Every number of a run's images, with a report. The same command goes on where it
        stopped, and says again what it found."""
        return options

    return tyro.cli(command, args=list(argv), prog=publish.PROG), origin


def start(options: EvaluateOptions, origin: PretrainedNetwork, argv: Sequence[str]) -> int:
    """One evaluation or a sweep, and its last words. The exit status."""
    if options.widths:
        sweep.start(options, origin, partial(evaluate, argv=argv))
        return 0
    evaluation = evaluate(options, origin, argv)
    print(f"next     {following(options, evaluation, argv)}")
    return 0


def evaluate(
    options: EvaluateOptions, origin: PretrainedNetwork, argv: Sequence[str]
) -> Evaluation:
    """Check, compute, write, log, and say how it went."""
    inputs = find_inputs(options, origin)
    against = publish.find_against(inputs)
    home = inputs.home
    for note in origin.notes:
        print(note)
    print(f"network  {origin.url}\nnumbers  {home.url}", flush=True)
    evaluation = read_evaluation(home)
    if evaluation is None:
        home.check_writable()
        evaluation = compute(inputs)
        command = " ".join([publish.PROG, *map(shlex.quote, argv)])
        write_evaluation(home, evaluation, {"made": time.time(), "command": command})
    if not publish.has_report(home, against):
        publish.write_report_files(home, inputs, evaluation, against)
    unlogged = publish.log_to_mlflow(home, inputs, evaluation)
    print("\n" + "\n".join(summary.table(evaluation)))
    print(f"\nmetrics  {home.path(METRICS)}\nreport   {home.path(publish.REPORT)}")
    if unlogged:
        print(f"waiting  {unlogged}; the same command logs them")
    return evaluation


def following(options: EvaluateOptions, evaluation: Evaluation, argv: Sequence[str]) -> str:
    """The next command: compare, or make the set that was best."""
    if not options.against:
        words = [publish.PROG, *map(shlex.quote, argv), "--against", "OTHER_RUN"]
        return " ".join(words)
    best = f"--guidance {evaluation.best.omega:g}"
    return f"python -m cbdm_scale.sample --run {shlex.quote(options.run)} {best}"


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
