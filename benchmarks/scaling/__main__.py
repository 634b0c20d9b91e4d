"""The command: see the package's docstring."""

import sys

from benchmarks.scaling import __doc__ as about
from benchmarks.scaling import measure, over_hosts, predict, reporters

COMMANDS = {
    "measure": measure.main,
    "predict": predict.main,
    "reporters": reporters.main,
    "hosts": over_hosts.main,
}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv.pop(1)]()
    else:
        sys.exit(about)
