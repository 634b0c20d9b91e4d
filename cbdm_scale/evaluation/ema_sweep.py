"""evaluate --ema-sweep: which width of the weights' average has the smallest FID (EDM2, S 3).

    <run>/evaluation/ema-sweep-<checkpoint>.json    FID by width, each with its evaluation

The average that the run itself carried (``ema``) is evaluated beside those found after it.
"""

import shlex
from collections.abc import Callable
from dataclasses import replace

from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.inputs import EVALUATIONS
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import prog_of, shorten
from cbdm_scale.training.options import POWER

Evaluate = Callable[[EvaluateOptions, PretrainedNetwork], Evaluation]


def start(options: EvaluateOptions, pretrained: PretrainedNetwork, evaluate: Evaluate) -> None:
    """Evaluate every width, write and print the table, name the best."""
    found: dict[str, Evaluation] = {}
    for weights in ("ema", *(f"{POWER}{width:g}" for width in options.widths)):
        print(f"\nweights  {weights}", flush=True)
        one = replace(options, weights=weights, ema_sweep=())
        # The checkpoint by its own name: a run that trains on does not move under the sweep.
        network = (
            load_pretrained(pretrained.url, weights=weights)
            if pretrained.folder
            else pretrained
        )
        found[weights] = evaluate(one, network)
    inside = f"{pretrained.folder}/{RunDir.EVALUATION}" if pretrained.folder else EVALUATIONS
    home = Storage(options.out or inside)
    name = f"ema-sweep-{pretrained.checkpoint}.json"
    known = home.read_json(name) if home.exists(name) else {}
    home.write_json(name, known | {w: _as_row(e) for w, e in found.items()})
    print("\n" + "\n".join(table(found)) + f"\n\nsweep    {home.path(name)}")
    best = min(found, key=lambda weights: _fid_of(found[weights]).value)
    words = ["--run", pretrained.url, "--weights", best]
    words += ["--guidance", as_text(found[best].best.omega)]
    words += ["--guide", options.guide] if options.guide else []
    words += ["--guide-weights", options.guide_weights] if options.guide_weights else []
    words += ["--data.root", options.data.root] if options.data.root else []
    print(f"next     {prog_of('sample')} {shlex.join(words)}")


def _fid_of(evaluation: Evaluation) -> Interval:
    """At the omega that suits it best; ValueError where there were too few images."""
    fid = evaluation.best.fid
    if fid is None:
        reasons = [gap.reason for gap in evaluation.best.missing if gap.name == "fid"]
        raise ValueError(
            "ema_sweep compares FIDs, and there is none: "
            f"{shorten(reasons, each=200, between=' ')}. Give more --num-images."
        )
    return fid


def _as_row(evaluation: Evaluation) -> dict[str, object]:
    best, fid = evaluation.best, _fid_of(evaluation)
    return {
        "id": evaluation.id,
        "num_images": best.num_images,
        "omega": best.omega,
        "fid": fid.value,
        "fid_low": fid.low,
        "fid_high": fid.high,
        "fid_by_group": {row.group: row.fid for row in best.table.pooled if row.group},
    }


def table(found: dict[str, Evaluation]) -> list[str]:
    """A line a width: FID with its interval, at the omega that suits it best."""
    lines = ["      weights    omega      FID [95 %]"]
    for weights, evaluation in found.items():
        fid = _fid_of(evaluation)
        shown = f"{fid.value:.2f} [{fid.low:.2f}, {fid.high:.2f}]"
        lines.append(f"{weights:>13}  {as_text(evaluation.best.omega):>7}  {shown}")
    return lines
