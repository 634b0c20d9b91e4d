"""One run that suffers faults at seeded random moments, and the record of it."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.faults.kinds import Failed, Kind, NotInjected
from benchmarks.faults.observed import SAVE_EVERY, ObservedRun
from benchmarks.faults.table import cost

RECOVERY_S = 420.0
"""Seconds after which a run is said not to have recovered."""


def moments(count: int, images: int, chance: random.Random) -> list[int]:
    """Numbers of images at which to strike: one in each equal part of the run, at random.

    None in the first and the last checkpoint interval, so that each one meets a run.
    """
    first, last = SAVE_EVERY, images - SAVE_EVERY
    part = (last - first) / count
    return [int(first + part * (i + chance.random())) for i in range(count)]


def recovered(run: ObservedRun, since: float, reached: int, *, restarts: bool) -> bool:
    """A step beyond all that was reached before, by new workers where there have to be.

    Where there need not be, the end of the run is as good.
    """
    if run.finished and not restarts:
        return True
    groups = [event.seconds for event in run.of_kind("workers") if event.seconds > since]
    if restarts and not groups:
        return False
    return max(run.since("step", groups[-1] if groups else since), default=0) > reached


def strike(run: ObservedRun, name: str, kind: Kind, chance: random.Random) -> dict[str, Any]:
    """Inject one fault now, wait for the recovery; the record."""
    time.sleep(chance.random())  # any moment of a step, of a checkpoint or between
    since, reached = time.monotonic(), run.reached
    record: dict[str, Any] = {"kind": name, "images": reached, "recovered": False}
    fault = kind.inject(run, chance)
    try:
        record["proof"] = next(fault)
        reached = run.reached
        lifted = time.monotonic() if not kind.restarts else since
        run.wait_for(
            lambda: recovered(run, lifted, reached, restarts=kind.restarts),
            RECOVERY_S,
            "recovered from " + name,
        )
        record["recovered"] = True
        next(fault, None)
    except NotInjected as error:
        return record | {"kind": f"no {name}", "why": str(error)}
    except (Failed, RuntimeError) as error:
        if run.finished:  # too late to say what the fault costs
            record.pop("proof", None)
        record |= {"recovered": False, "why": str(error)}
    finally:
        fault.close()
    return record | asdict(cost(list(run.events), since, time.monotonic()))


def run_with_faults(
    run: ObservedRun, faults: Sequence[tuple[str, Kind]], seed: int
) -> list[dict[str, Any]]:
    """Start the command, strike with all the faults, come to the end; the records."""
    when = moments(len(faults), run.images, random.Random(seed))
    done: list[dict[str, Any]] = []
    run.start()
    for (name, kind), moment in zip(faults, when, strict=True):
        run.wait_for(lambda at=moment: run.newest_reached >= at, 600, f"at {moment} images")
        record = strike(run, name, kind, random.Random(f"{seed}/{len(done)}"))
        done.append(record)
        print(f"{run.name} {len(done)}/{len(faults)} {json.dumps(record)}", flush=True)
        if run.finished:
            return done
        if not record["recovered"] and "why" in record and "proof" in record and run.ended:
            run.start()
    code = run.finish(900)
    if code:
        raise RuntimeError(f"{run.name} ended with {code}: {run.tail()}")
    return done
