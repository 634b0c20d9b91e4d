"""Faults, each injected at random moments into a real run, and what each of them cost.

    python -m benchmarks.faults --storage FOLDER [--only NAME ...] [--repeats 5]
    python -m benchmarks.faults --storage FOLDER --soak fixed --faults 25

nodes.py (a Ray cluster whose nodes can be killed), watched.py (the train command, and what it
said when), stores.py (an object store, a disk and a tracker that fail on request) -> kinds.py
(the faults; each proves that it was injected) -> suffer.py (one run and its faults), soak.py
(a long run and a mixture of them) -> measure.py (what a fault cost), table.py.
"""
