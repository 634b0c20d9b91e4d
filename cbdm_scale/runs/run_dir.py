"""The folder of a run: its own, or another's, which is refused."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cbdm_scale.config.schema import Config, is_runtime
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import flatten
from cbdm_scale.storage.run_dir import RunDir


def open_run_dir(config: Config, manifest: Manifest) -> Storage:
    """The run's folder, with config.json in it; ValueError if it is another run's."""
    image = {
        "channels": manifest.channels,
        "size": manifest.image_size,
        "num_classes": manifest.num_classes,
        "fingerprint": manifest.fingerprint,
    }
    storage = Storage(config.cluster.storage)
    storage.check_writable()
    run = storage.child(config.run_name)
    if run.exists(RunDir.CONFIG):
        try:
            before = flatten(run.read_json(RunDir.CONFIG))
            before.pop("classes", None)  # the fingerprint stands for them
        except ValueError as error:
            raise ValueError(
                f"{run.path('config.json')} is damaged ({error}). Remove the folder, or choose "
                "another --name."
            ) from error
        now = config.flat() | flatten({"image": image})
        if other := differing(science(before), science(now)):
            raise ValueError(
                f"name ({config.run_name}) is a run with another configuration: {other}. "
                "Choose another --name, or the options it began with."
            )
    run.make_folder()
    about = asdict(config) | {"image": image, "classes": manifest.class_names}
    run.write_json(RunDir.CONFIG, json.loads(json.dumps(about)))
    return run


def science(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that change what is learnt."""
    return {option: value for option, value in options.items() if not is_runtime(option)}


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Where a folder's options and ours are not the same, in words; "" if they are."""
    return ", ".join(
        f"{option} ({before.get(option, 'absent')} there, {now.get(option, 'absent')} here)"
        for option in sorted(before.keys() | now.keys())
        if before.get(option) != now.get(option)
    )
