"""How fast everything is on a GPU."""
