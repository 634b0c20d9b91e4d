"""Where a trained network comes from: a run, a checkpoint, a model in MLflow, foreign files.

network.py: what is known of one; loading.py finds it by its name, third_party.py and
diffusers_folder.py read what others wrote; dataset.py: the data set that it learnt from.
"""
