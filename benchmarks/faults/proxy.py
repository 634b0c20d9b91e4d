"""A faulty proxy as a process of its own, whose rules are a file that may change at any time.

    python -m benchmarks.faults.proxy LISTEN PORT UPSTREAM_PORT FOLDER

FOLDER/rules.json has the rules; how many answers they have spoilt since they were read is kept
in FOLDER/spoilt.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.faulty_proxy import Rule, faulty_proxy


def main(listen: str, port: str, upstream: str, folder: str) -> None:
    path, spoilt, text, many = Path(folder, "rules.json"), Path(folder, "spoilt"), "", 0
    with faulty_proxy(listen, int(upstream), listen, int(port)) as proxy:
        while True:
            time.sleep(0.05)
            if path.exists() and (now := path.read_text()) and now != text:
                text = now
                proxy.rules = [Rule(**rule) for rule in json.loads(text)]
                many = sum(rule.times for rule in proxy.rules)
            spoilt.write_text(str(many - sum(rule.times for rule in proxy.rules)))


if __name__ == "__main__":
    main(*sys.argv[1:])
