"""A set of generated images on disk: what it is, its chunks, and the forms it is given out in.

plan.py (what decides every pixel) -> make.py (a chunk of it) -> store.py (chunks on disk) ->
export.py (PNG folder, .npz, shards, the grid); making.py does it on a cluster, images.py reads
what was made
"""
