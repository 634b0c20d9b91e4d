"""Sets of images of a trained network, made on all workers; what is there is kept.

plan.py: what decides every pixel; store.py: its chunks in storage; generate.py makes what is
missing on the workers; export.py: a finished set as PNG, npz, shards to train on, and a grid.
"""
