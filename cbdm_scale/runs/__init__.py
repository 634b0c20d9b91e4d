"""A run: launching it, one rank of it, its checkpoints.

launch.py checks everything, opens its folder and starts it (node_checks.py asks the nodes);
worker.py is one rank; checkpoint_manager.py writes checkpoints beside training; estimate.py
says before a run how long it takes, listing.py what runs there are (cbdm runs). The names in a
run's folder stand in storage/run_dir.py.
"""
