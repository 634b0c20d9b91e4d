"""Faults, each injected at random moments into a real run, and what each of them cost.

    python -m benchmarks.faults --storage FOLDER [--only NAME ...] [--repeats 4]
    python -m benchmarks.faults --storage FOLDER --soak 30
    python -m benchmarks.faults --storage FOLDER --soak 30 --elastic --workers 3

Linux, root and iproute2: the run is spread over hosts with addresses of their own
(benchmarks.hosts). The files, in the order of their imports:

observed.py    the train command, and what it said when
backends.py    an object store, a disk and a tracker that fail on request
kinds.py       all faults
inject.py      one run and its faults, each of which proves that it was injected
table.py       what a fault cost
"""
