"""cbdm preflight: whether a cluster is ready for a run, in seconds.

Takes the options of the train command, which asks the same by itself before a run on several
nodes. Leaves nothing behind.
"""

import shlex
import sys
from collections.abc import Sequence

from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.cluster.connect import connect
from cbdm_scale.config.run_options import RUN_PARTS, RUN_SHORT, RunOptions, parse_run, resolve
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import dataset_folder
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.tracking.runs import default_tracking_uri

COMMAND = Command(
    name="preflight",
    about="Whether a cluster is ready for a run: takes the options of cbdm train.",
    parts=RUN_PARTS,
    short=RUN_SHORT,
)


@main_of
def main(argv: Sequence[str]) -> int:
    """Ask every node, and print what they answer. The exit status."""
    typed = COMMAND.read(argv, lambda typed: [parse_run(typed).base, RunOptions()])
    parsed = parse_run(typed)
    with parsed.naming_the_file():
        ask(resolve(parsed.config))
    return 0


def ask(config: Config) -> None:
    """What the nodes say of a run; ValueError names those that are not ready."""
    from cbdm_scale.runs.launch import check_extractor, prepare_data
    from cbdm_scale.runs.node_checks import look_at_nodes
    from cbdm_scale.storage.folder import Storage

    folder = Storage(dataset_folder(config.data.root, config.dataset))
    if config.dataset == "digits_lt" and not folder.exists("dataset.json"):
        raise ValueError(
            f"data.root ({config.data.root}) has no digits_lt yet, which the train command "
            f"would make there. Make it with {prog_of('prepare')} digits-lt --out "
            f"{shlex.quote(config.data.root)}."
        )
    manifest = prepare_data(config)
    check_extractor(config, manifest)
    connect(config.cluster)
    storage = Storage(config.cluster.storage)
    storage.check_writable()
    uri = config.track.uri or default_tracking_uri(storage)
    print(look_at_nodes(config, manifest, uri))


if __name__ == "__main__":
    sys.exit(main())
