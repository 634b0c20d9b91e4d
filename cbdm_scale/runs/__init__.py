"""A run: its folder, its checkpoints, one rank of it, launching it."""
