"""What many machines cost: measured on 1, 2 and 3 processes, computed for 8 to 512 GPUs.

    python -m benchmarks.scaling measure     bytes on the wire, overlap, buckets, bf16
    python -m benchmarks.scaling reporters   who talks to whom as the workers grow
    python -m benchmarks.scaling hosts       images a second on hosts with cables of their own
    python -m benchmarks.scaling predict     efficiency of every preset (--picture FOLDER)

wire.py (bytes of this process's sockets, the ring's lower bound) and variants.py (ways to get
the mean gradient) -> ranks.py (one rank) -> measure.py (starts the ranks, makes the tables).
model.py is pure arithmetic: fitted to the measurements by fit.py, applied to the presets'
own counts (counts.py) and to published figures (published.py) by predict.py.
"""
