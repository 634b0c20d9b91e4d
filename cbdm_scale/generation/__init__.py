"""Sets of images of a trained network, made on all workers; what is there is kept.

plan.py: what decides every pixel; chunk_size.py: how many images at once; store.py: a set's
chunks in storage; network.py: the network as sampling calls it; chunks.py makes what is
missing on the workers.
"""
