"""What makes a search this one and no other, its folder, and what it would do, in words."""

import hashlib
import json
from typing import Any

from cbdm_scale.config.schema import Config, is_runtime
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import describe_differences, flatten
from tune.options import SearchConfig, all_rungs
from tune.schedule import expected_images, num_kinds
from tune.space import Space, fixed

HEADER = "search.json"


def identity(options: SearchConfig, base: Config, space: Space) -> dict[str, Any]:
    """What makes it this search and no other: it cannot change when the search goes on."""
    kept = tuple(
        f"eval.{option}"
        for option in ("guidance", "num_images", "recall_images", "seed", "extractor", "scan")
    )
    runs = {
        option: value
        for option, value in base.flat().items()
        if not is_runtime(option) or option.startswith(("sample.", *kept))
    }
    found = {
        "objective": options.objective,
        "scheduler": options.scheduler,
        "searcher": options.searcher,
        "rungs": list(all_rungs(options, base)),
        "eta": options.eta,
        "space": {option: str(dimension) for option, dimension in sorted(space.items())},
        "fixed": fixed(options.space),
        "runs": runs,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def search_name(options: SearchConfig, base: Config, space: Space) -> str:
    """--name, or a name made of the data set, the objective and a hash of the identity."""
    if base.name:
        return base.name
    text = json.dumps(identity(options, base, space), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{base.dataset}-{options.objective}-{digest}"


def open_search_dir(folder: Storage, mine: dict[str, Any]) -> None:
    """The folder with its header; ValueError if it is another search's."""
    if folder.exists(HEADER):
        before, now = flatten(folder.read_json(HEADER)), flatten(mine)
        if other := describe_differences(before, now):
            raise ValueError(
                f"name ({folder.url.rpartition('/')[2]}) is a search with other options: "
                f"{other}. Choose another --name, or the options it began with."
            )
    folder.make_folder()
    folder.write_json(HEADER, mine)


def describe_search(options: SearchConfig, base: Config, space: Space) -> dict[str, str]:
    """What a search would do, in words."""
    steps = all_rungs(options, base)
    every = options.trials * steps[-1]
    asha = expected_images(options.trials, steps, options.eta, num_kinds(space))
    again = (options.finalists + (options.num_controls > 0)) * options.repeats * steps[-1]
    again = again if options.finalists else 0
    first = asha if options.scheduler == "asha" else every
    name = search_name(options, base, space)
    return {
        "search": Storage(base.cluster.storage).child("search").child(name).url,
        **{option: str(dimension) for option, dimension in space.items()},
        **{option: f"{value:g} (fixed)" for option, value in fixed(options.space).items()},
        "controls (tau 0)": f"{options.num_controls} of {options.trials} trials",
        "rungs": ", ".join(f"{images:,}" for images in steps),
        "images, every trial to its end": f"{every:,}",
        "images, expected": f"{first:,}",
        "images, repetitions": f"{again:,}, in all {first + again:,}",
        "guidance strengths": ", ".join(map(as_text, base.eval.guidance)),
    }
