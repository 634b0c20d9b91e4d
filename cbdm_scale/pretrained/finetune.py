"""A run that starts from a trained network (Section 4.2, Table 2): what it takes over.

The weights are mapped once, by the train command, into the run's own folder (init.safetensors),
from where all ranks read them. A run that has started does without the trained network.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.data.class_names import labels_of_names
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork, find_training_data, network_spec
from cbdm_scale.pretrained.second_stage import (
    check_rows,
    check_teacher,
    describe_stage,
    inherit_run,
    is_second_stage,
    with_second_stage,
)
from cbdm_scale.pretrained.transfer import Transfer, transfer
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import MLFLOW
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import shorten
from cbdm_scale.training.checkpoint import save_initial

MAY_DIFFER = {"dropout"}
"""Options of a network that may change: its weights mean the same."""

SAME_DATA, OTHER_DATA = 0.0, 1.0
"""loss.label_power that Table 2 found best: bal on the same data (FID 5.85), train on other
data (5.05)."""

Rows = list[int | None]


@dataclass(frozen=True, kw_only=True)
class InitFrom:
    """What a run starts from, as far as its configuration must know."""

    url: str
    """What was found: a checkpoint, a file."""
    typed: str
    """What was asked for; paths are absolute."""
    sha256: str
    """Of the weights: sixteen hex digits."""
    config: Config
    """The trained network's: its model and diffusion are the defaults."""
    fingerprint: str
    """Of the data set that it learnt, "" where nothing says it."""
    num_seen: int | None
    """Images that it has seen in training, None where nothing says it."""
    pretrained: PretrainedNetwork | None
    """None: it is gone, and the run has started."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Initial:
    """What a run's folder says of what it started from."""

    url: str
    typed: str
    report: list[str]
    """The lines that said what was mapped."""
    fingerprint: str
    weights: str
    """The sha256 of the trained network's file."""
    num_seen: int | None
    config: dict[str, Any]
    sha256: str = ""
    """Of the weights as they were mapped."""


def load_init_from(typed: str, storage: str, name: str) -> InitFrom:
    """What --init-from names, for a run in this storage, of this name ("": of any)."""
    url = typed if typed.startswith(MLFLOW) else Storage(typed).url
    started = _started_runs(Storage(storage), name, url)
    try:
        pretrained = load_pretrained(url)
    except (ValueError, OSError) as error:
        text = str(error).replace("run (", "init_from (").replace("--run", "--init-from")
        if not started:
            raise ValueError(text) from error
        note = f"note: {text} A run that has started from it can do without."
        return replace(started[0], notes=(note,))
    now = InitFrom(
        url=pretrained.url,
        typed=url,
        sha256=pretrained.weights_sha256[:16],
        config=pretrained.config,
        fingerprint=pretrained.fingerprint,
        num_seen=pretrained.num_seen,
        pretrained=pretrained,
        notes=pretrained.notes,
    )
    if not started or now.sha256 in [init.sha256 for init in started]:
        return now
    text = f"note: init_from ({typed}) holds other weights now, {now.sha256}, than those that "
    if name:
        text += f"{name} began with, {started[0].sha256}: it goes on with its own"
        return replace(started[0], notes=(text,))
    text += f"an earlier run began with, {started[0].sha256}: this is another run"
    return replace(now, notes=(*now.notes, text))


def _started_runs(runs: Storage, name: str, typed: str) -> list[InitFrom]:
    """From runs' own files: of this name, or all that were started with this --init-from."""
    found = []
    for run in [name] if name else runs.list():
        home = runs.child(run)
        if not home.exists(RunDir.INITIAL_ABOUT):
            continue
        try:
            about: _Initial = home.read_json(RunDir.INITIAL_ABOUT, _Initial)
            config, trained = from_dict(home.read_json(RunDir.CONFIG)), from_dict(about.config)
        except ValueError:
            continue  # damaged: whoever opens that run is told
        if name or typed == about.typed:
            one = InitFrom(
                url=config.init_from,
                typed=about.typed,
                sha256=config.init_sha256,
                config=trained,
                fingerprint=about.fingerprint,
                num_seen=about.num_seen,
                pretrained=None,
            )
            found.append(one)
    return found


def inherit_network(
    base: Config, init: InitFrom, typed: Mapping[str, Any], chosen: Collection[str]
) -> Config:
    """The defaults of a run's options: network and noise are those of the trained network.

    In a second stage of TCFG all others too, unless a preset or a file is ``typed``. ValueError
    where it names another network or noise. ``chosen``: options that somebody chose.
    """
    there = init.config
    stage = is_second_stage(base, typed)
    if stage and typed.keys().isdisjoint(("preset", "config")):
        base = inherit_run(base, there, typed)
    if (here := typed.get("backbone", there.backbone)) != there.backbone:
        raise ValueError(
            f"backbone ({here}) contradicts the network of --init-from, {there.backbone}. "
            "Leave --backbone out."
        )
    wanted = base.process if base.process != Config.process else there.process
    if (process := typed.get("process", wanted)) != there.process:
        raise ValueError(
            f"process ({process}) contradicts the network of --init-from, which answers as "
            f"{there.process}. Leave --process out, and take a row of {there.process}."
        )
    base = replace(
        base,
        backbone=there.backbone,
        model=there.model,
        process=there.process,
        diffusion=there.diffusion,
        edm=there.edm,
        sample=base.sample if process == base.process else usual_sampler(there.process),
    )
    if not stage:
        return base
    num_seen = init.num_seen or there.train.total_images
    return with_second_stage(base, num_seen, typed, chosen)


def resolve_init_from(
    config: Config, init: InitFrom, manifest: Manifest, *, chosen: Collection[str]
) -> tuple[Config, list[str]]:
    """The configuration with all that follows from the trained network, and lines that say so.

    ``chosen``: options that somebody chose, which stay.
    """
    check_architecture(config.model, init.config.model)
    if config.init_sha256 not in ("", init.sha256):
        raise ValueError(
            f"init_sha256 ({config.init_sha256}) is not that of {init.url} ({init.sha256}). "
            "Leave it out, or give the network that it belongs to."
        )
    lines, loss = list(init.notes), config.loss
    if loss.tcfg and loss.tcfg_target == "auto":
        loss = replace(loss, tcfg_target="teacher")
    if loss.distils:
        check_teacher(init.typed, init.config, init.fingerprint, manifest)
        lines.append(describe_stage(config))
    if "loss.label_power" not in chosen and loss.regularises:
        same = init.fingerprint == manifest.fingerprint
        loss = replace(loss, label_power=SAME_DATA if same else OTHER_DATA)
        lines.append(
            f"loss.label_power {loss.label_power:g} "
            + ("(bal: same data" if same else "(train: other data")
            + " as the trained network's, where Table 2 found it best; the option chooses "
            "another)"
        )
    config = replace(config, init_from=init.url, init_sha256=init.sha256, loss=loss)
    return config, lines


def check_architecture(here: Any, there: Any) -> None:
    """ValueError if the options name another network than the trained one."""
    if type(here) is not type(there):
        raise ValueError(
            f"model is a {type(here).__name__}, the network of --init-from is a "
            f"{type(there).__name__}. Leave the choice of the network out."
        )
    differing = [
        f"model.{field.name} ({getattr(here, field.name)} here, {value} there)"
        for field in fields(there)
        if field.name not in MAY_DIFFER
        and getattr(here, field.name) != (value := getattr(there, field.name))
    ]
    if differing:
        raise ValueError(
            f"{shorten(differing, each=120)} contradicts the network of --init-from. Leave the "
            "options of --model out: they are then the trained network's."
        )


def write_initial_weights(
    config: Config, init: InitFrom, manifest: Manifest, *, write: bool
) -> list[str]:
    """Write what the run starts from into its folder, once; lines that say what became of it.

    Without ``write`` it is only tried.
    """
    run = Storage(config.cluster.storage).child(config.run_name)
    if run.exists(RunDir.INITIAL_ABOUT):
        return []
    if init.pretrained is None:
        raise ValueError(
            f"init_from ({init.typed}) cannot be opened, and no run with these options has "
            "started from it. Give the trained network's place, or the options of that run."
        )
    rows, how = label_rows(init.pretrained, manifest, config.init_labels)
    if config.loss.distils:
        check_rows(init.typed, rows, how)
    net = build(network_spec(config, manifest))
    try:
        made = transfer(net, init.pretrained.tensors, rows)
    except ValueError as error:
        raise ValueError(f"init_from ({init.url}): {error}") from error
    lines = describe(made, init, how)
    if write:
        about = _Initial(
            url=init.url,
            typed=init.typed,
            report=lines,
            fingerprint=init.fingerprint,
            weights=init.sha256,
            num_seen=init.num_seen,
            config=json.loads(json.dumps(asdict(init.config))),
        )
        save_initial(run, made.tensors, asdict(about))
    return lines


def describe(made: Transfer, init: InitFrom, how: str) -> list[str]:
    """For people: what was mapped, what is new, what was left."""
    numbers = sum(tensor.numel() for tensor in made.tensors.values())
    return [
        f"start    {init.url}, averaged weights {init.sha256}",
        f"mapped   {len(made.tensors)} tensors, {numbers:,} numbers; label rows {how}",
        "new      " + (f"{shorten(made.new)}: they add nothing yet" if made.new else "none"),
        "left     " + (shorten(made.left) or "none"),
    ]


def label_rows(pretrained: PretrainedNetwork, manifest: Manifest, how: str) -> tuple[Rows, str]:
    """For each class (K,) of the data set its label row in the trained network, and why.

    None is the mean of that network's rows.
    """
    there, here = pretrained.spec.num_classes, manifest.num_classes
    mean: Rows = [None] * here
    by_number: Rows = [c if c < there else None for c in range(here)]
    if how == "mean":
        return mean, "all from the mean row (init_labels mean)"
    if how == "index":
        return by_number, f"by number: {min(here, there)} of {here} (init_labels index)"
    if pretrained.fingerprint == manifest.fingerprint:
        return by_number, f"by number: the same data set, {here} classes"
    names = pretrained.class_names
    if not names:
        real, _ = find_training_data(pretrained, "")
        names = real.class_names if real else ()
    if not names:
        return mean, (
            "all from the mean row, as the trained network does not know its classes' names; "
            "if they are in the order of this data set, --init-labels index"
        )
    rows: Rows = labels_of_names(manifest.class_names, names)
    lacking = [n for n, row in zip(manifest.class_names, rows, strict=True) if row is None]
    return rows, f"by name: {here - len(lacking)} of {here}" + (
        f"; from the mean row: {shorten(lacking)}" if lacking else ""
    )
