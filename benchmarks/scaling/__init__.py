"""What many machines cost: measured on 1, 2 and 3 processes, computed for 8 to 512 GPUs.

    python -m benchmarks.scaling measure     bytes on the wire, overlap, buckets, bf16
    python -m benchmarks.scaling reporters   who talks to whom as the workers grow
    python -m benchmarks.scaling hosts       images a second on hosts with cables of their own
    python -m benchmarks.scaling predict     efficiency of every preset

variants.py (ways to get the mean gradient) -> ranks.py (one rank, and the bytes of its sockets)
-> measure.py (starts the ranks, makes the tables). model.py is arithmetic: fitted to the
measurements, and applied by predict.py to the presets' own counts and to published figures.
reporters.py and over_hosts.py stand alone.
"""
