"""Shards on disk, the plan of which sample comes when, and the loader that follows it."""
