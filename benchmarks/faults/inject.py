"""One run that suffers faults at seeded random moments, and the record of it."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults.cost import cost
from benchmarks.faults.kinds import Failed, Kind, NotInjected, Scene
from benchmarks.faults.observed import SAVE_EVERY, Event, ObservedRun

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
    after = [event for event in list(run.events) if event.seconds > since]
    groups = [event.seconds for event in after if event.kind == "workers"]
    if restarts and not groups:
        return False
    begun = groups[-1] if groups else since
    return any(e.kind == "step" and e.images > reached and e.seconds > begun for e in after)


def strike(scene: Scene, name: str, kind: Kind, chance: random.Random) -> dict[str, Any]:
    """Inject one fault now, wait for the recovery; the record."""
    run = scene.run
    time.sleep(chance.random())  # any moment of a step, of a checkpoint or between
    since, reached = time.monotonic(), run.reached
    record: dict[str, Any] = {"kind": name, "images": reached, "recovered": False}
    fault = kind.inject(scene, chance)
    try:
        record["proof"] = next(fault)
        reached = max(e.images for e in run.events if e.kind == "step")
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
    events: list[Event] = list(run.events)
    return record | asdict(cost(events, since, time.monotonic()))


def run_with_faults(
    scene: Scene, faults: Sequence[tuple[str, Kind]], seed: int, journal: Path
) -> list[dict[str, Any]]:
    """All the faults, each recorded in the journal as it is over; what is there is not redone.

    The command is started, and has come to its end when this returns.
    """
    run, chance = scene.run, random.Random(seed)
    when = moments(len(faults), run.images, chance)
    done = (
        [json.loads(line) for line in journal.read_text().splitlines()]
        if journal.exists()
        else []
    )
    run.start()
    for (name, kind), moment in list(zip(faults, when, strict=True))[len(done) :]:
        run.wait_for(lambda moment=moment: fresh(run, moment), 600, f"at {moment} images")
        record = strike(scene, name, kind, random.Random(f"{seed}/{len(done)}"))
        done.append(record)
        with journal.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{run.name} {len(done)}/{len(faults)} {json.dumps(record)}", flush=True)
        if run.finished:
            return done
        if not record["recovered"] and "why" in record and "proof" in record and run.ended:
            run.start()
    code = run.finish(900)
    if code:
        raise RuntimeError(f"{run.name} ended with {code}: {run.tail()}")
    return done


def fresh(run: ObservedRun, moment: int) -> bool:
    """Whether the workers that run now have come to a number of images."""
    steps = [e for e in list(run.events) if e.kind == "step"]
    groups = run.of_kind("workers")
    return bool(
        steps
        and groups
        and steps[-1].seconds > groups[-1].seconds
        and steps[-1].images >= moment
    )
