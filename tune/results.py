"""The end of a search: a preset file, a page, the same in MLflow, and a few lines to read."""

import json
import shlex
from dataclasses import asdict
from typing import Any

from cbdm_scale.config.preset_file import PresetFile, may_hold, preset_text
from cbdm_scale.config.presets import find_preset
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import parse_strength
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.tracking.log_evaluation import log_results
from cbdm_scale.tracking.runs import ui_command
from tune.analysis import Comparison, Finalist, compare, finalists, statement
from tune.objective import best_strength
from tune.page import make_page
from tune.search import Search

PRESET, PAGE, FINDINGS = "winner.json", "report.html", "findings.json"


def write_results(search: Search, folder: Storage) -> None:
    """Write what was found into the search's folder and MLflow, and print it."""
    objective = search.options.objective
    found = finalists(search.store, objective)
    control = next((f for f in found if f.trial.is_control), None)
    compared = compare(found[0], control) if found and control else []
    if found and found[0].trial.is_control:
        compared = []
    lines = statement(found, compared)
    files = make_page(search, found, compared, lines)
    files[FINDINGS] = _findings_json(search, found, compared, lines)
    if found and found[0].repetitions:
        files[PRESET] = preset_text(winner_preset(search, found[0], lines)).encode()
    for name, data in files.items():
        folder.write_bytes(name, data)
    why_not = log_results(
        folder,
        search.template.uri,
        search.template.rungs[-1],
        _metrics(found, compared),
        files,
        "search",
    )
    _print(search, folder, lines)
    if found and found[0].repetitions:
        print(f"next     {train_command(search.base, folder.path(PRESET))}")
    if why_not:
        print(f"MLflow   {why_not}")


def train_command(base: Config, preset: str) -> str:
    """What trains a preset file; it says nothing of the machine, so the line does."""
    words = [*prog_of("train").split(), "--config", preset]
    for option in ("data.root", "cluster.storage"):
        value, usual = base.flat()[option], Config().flat()[option]
        if value not in (usual, Storage(usual).url):
            words += [f"--{option}", value]
    return shlex.join(words)


def winner_preset(search: Search, best: Finalist, lines: list[str]) -> PresetFile:
    """The winner as a file for --config: what differs from the preset that it began with."""
    config = search.template.config(
        best.trial.id, "search", best.trial.params, search.base.seed
    )
    return PresetFile(
        dataset=config.dataset,
        preset=config.preset,
        options=_changed_options(config, best.omega),
        about=f"Search {search.template.name}, trial {best.trial.id}. {' '.join(lines)}",
    )


def _changed_options(config: Config, omega: str) -> dict[str, Any]:
    """The options that a preset file may hold and that the preset has otherwise."""
    usual = find_preset(config.dataset, config.preset, config.data.root)
    base = find_preset(config.dataset, config.preset, config.data.root, config.backbone).flat()
    base["backbone"] = usual.backbone
    found = {
        option: value
        for option, value in config.flat().items()
        if option not in ("seed", "dataset") and may_hold(option) and value != base[option]
    }
    return {**found, "eval.guidance": [parse_strength("eval.guidance", omega)]}


def _metrics(found: list[Finalist], compared: list[Comparison]) -> dict[str, float]:
    """Metrics of the search's MLflow run."""
    metrics = {f"finalist/{f.trial.id}/objective": f.mean for f in found if f.repetitions}
    for c in compared:
        metrics[f"winner/{c.metric}"] = c.winner.value
        metrics[f"control/{c.metric}"] = c.control.value
        metrics[f"difference/{c.metric}"] = c.difference.value
    return metrics


def _findings_json(
    search: Search, found: list[Finalist], compared: list[Comparison], lines: list[str]
) -> bytes:
    """The numbers of the page, for programs; an interval of one seed has no ends."""
    content = {
        "search": search.template.name,
        "statement": lines,
        "finalists": [
            {
                "trial": f.trial.id,
                "params": dict(f.trial.params),
                "omega": parse_strength("omega", f.omega),
                "seeds": [t.seed for t in f.repetitions],
                "objective": f.scalars(),
            }
            for f in found
        ],
        "winner_against_control": [asdict(c) | {"verdict": c.verdict} for c in compared],
        "cost": _cost(search),
    }
    plain = (
        json.dumps(content, indent=2).replace("-Infinity", "null").replace("Infinity", "null")
    )
    return f"{plain}\n".encode()


def _cost(search: Search) -> dict[str, float]:
    """What the trials cost, and what all of them to their end would have cost."""
    trials = search.store.of_kind("control", "search")
    again = search.store.of_kind("final")
    ended = [t for t in trials if t.train_seconds]
    spent = {
        "trials": len(trials),
        "failed": sum(t.status == "failed" for t in trials),
        "images": sum(t.images for t in trials),
        "images_without_stopping": len(trials) * search.template.rungs[-1],
        "images_of_repetitions": sum(t.images for t in again),
        "seconds": sum(t.seconds for t in (*trials, *again)),
    }
    if ended:  # what the workers did not spend: processes that start, MLflow
        whole = sum(t.seconds for t in ended)
        spent["startup_share"] = 1 - sum(t.train_seconds for t in ended) / whole
    return spent


def _print(search: Search, folder: Storage, lines: list[str]) -> None:
    objective, spent = search.options.objective, _cost(search)
    done = [t for t in search.store.of_kind("control", "search") if t.rungs]

    print()
    for trial in sorted(done, key=lambda t: (-t.images, t.value(objective)))[:8]:
        omega = best_strength(trial.rungs[-1].scores, objective)
        value, params = trial.value(objective), search.values_text(trial)
        print(f"{trial.id} {trial.images:>9,} images  {value:8.2f}  omega {omega}  {params}")
    print()
    for line in lines:
        print(line)
    saved = 1 - spent["images"] / max(spent["images_without_stopping"], 1)
    print(
        f"cost     {spent['images']:,} images in {spent['trials']} trials, {saved:.0%} less "
        f"than all to their end; {spent['images_of_repetitions']:,} in repetitions"
    )
    print(f"report   {folder.path(PAGE)}")
    print(f"charts   {ui_command(search.template.uri, search.template.parent)}")
