"""See ``cbdm_scale.evaluate``."""

import sys

from cbdm_scale.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
