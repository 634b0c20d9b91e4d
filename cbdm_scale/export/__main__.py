"""See ``cbdm_scale.export``."""

import sys

from cbdm_scale.export.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
