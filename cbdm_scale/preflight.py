"""python -m cbdm_scale.preflight: whether a cluster is ready for a run, in seconds.

Takes the options of python -m cbdm_scale.train, which asks the same by itself before a run on
several nodes. Leaves nothing behind.
"""

import sys
from collections.abc import Sequence

from cbdm_scale.runs.command_line import parse, resolve
from cbdm_scale.runs.launch import check_extractor, find_data
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import refuse_typed_passwords


def main(argv: Sequence[str]) -> int:
    from cbdm_scale import cluster, tracking
    from cbdm_scale.runs.node_checks import look_at_nodes

    try:
        refuse_typed_passwords(argv)
        config = resolve(parse(argv)[0])
        manifest = find_data(config)
        check_extractor(config, manifest)
        cluster.connect(config.cluster)
        storage = Storage(config.cluster.storage)
        storage.check_writable()
        uri = config.track.uri or tracking.default_tracking_uri(storage)
        print(look_at_nodes(config, manifest, uri))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
