"""What is on record of each generated image: beside it in its shard, and in one table."""

import io
import json
import math
from collections.abc import Iterator
from typing import Any

from cbdm_scale.balancing.inputs import Inputs
from cbdm_scale.balancing.rounds import Found, Round

DIGITS = 6
"""Of a score."""


def image_record(inputs: Inputs, found: Found, one: Round, number: int) -> dict[str, Any]:
    """Where image ``number`` of a round comes from and how it was judged, as plain data."""
    looks, verdicts, plan = one.looks, one.verdicts, one.plan
    label = int(looks.labels[number])
    strength = plan.omegas_of(looks.labels[number : number + 1])
    limits = found.thresholds
    return {
        "generated": True,
        "run": inputs.pretrained.name,
        "checkpoint": inputs.pretrained.checkpoint,
        "weights_sha256": inputs.pretrained.weights_sha256,
        "class": inputs.real.class_names[label],
        "label": label,
        "set": plan.name,
        "number": number,
        "seed": plan.seed,
        "strength": round(float(strength), DIGITS),
        "guidance_mode": plan.mode,
        "guide": plan.guided_by,
        "sampler": f"{plan.sample.name} {plan.sample.num_steps}",
        "confidence": _number(looks.confidence[number]),
        "taken_for": inputs.real.class_names[int(looks.predicted[number])],
        "nearest_real": inputs.train.index.key(int(verdicts.nearest[number])),
        "distance": _number(verdicts.distance[number]),
        "class_distance": _number(verdicts.class_distance[number]),
        "made_distance": _number(verdicts.made_distance[number]),
        "least_confidence": _number(limits.label[label]),
        "least_distance": _number(limits.near[label]),
        "most_distance": _number(limits.far[label]),
    }


def _number(value: Any) -> float | None:
    found = float(value)
    return round(found, DIGITS) if math.isfinite(found) else None


def image_key(one: Round, number: int, place: int) -> str:
    """Name of an accepted image among the samples: its round and its number there."""
    return f"made-{place:02d}-{number:06d}"


def accepted(inputs: Inputs, found: Found) -> Iterator[tuple[str, Round, int, dict[str, Any]]]:
    """(key, round, number, record) of all accepted images, round by round."""
    for place, one in enumerate(found.rounds):
        for number in one.rows([""]).tolist():
            key = image_key(one, number, place)
            yield key, one, number, image_record(inputs, found, one, number)


def table(inputs: Inputs, found: Found) -> bytes:
    """A Parquet file: a row for each image that was made, rejected ones with their reason."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for place, one in enumerate(found.rounds):
        for number, reason in enumerate(one.verdicts.reasons):
            record = image_record(inputs, found, one, number)
            key = "" if reason else image_key(one, number, place)
            rows.append({"key": key, "accepted": not reason, "reason": reason} | record)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def summary(inputs: Inputs, found: Found) -> dict[str, Any]:
    """Counts by class and by reason, thresholds, and what decided them, as plain data."""
    real, limits = inputs.real, found.thresholds
    classes = []
    for c, name in enumerate(real.class_names):
        reasons = found.reasons(c)
        classes.append(
            {
                "class": name,
                "group": real.groups[c],
                "real": real.counts["train"][c],
                "lacked": inputs.need[c],
                "accepted": found.accepted[c],
                "made": sum(reasons.values()),
                "rejected": {r: n for r, n in sorted(reasons.items()) if r},
                "least_confidence": _number(limits.label[c]),
                "least_distance": _number(limits.near[c]),
                "most_distance": _number(limits.far[c]),
                "thresholds_of": limits.basis[c],
            }
        )
    plain = {
        "decided": inputs.decided,
        "held_out": found.held_out,
        "held_out_passed": round(found.real_passed, DIGITS),
        "label_fidelity": round(found.fidelity, DIGITS),
        "classes": classes,
    }
    return dict(json.loads(json.dumps(plain)))
