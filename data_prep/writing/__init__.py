"""The writer: shards, their tables, and a small classifier, to a folder or a store.

shards (a whole data set) <- tars (one shard, its record) in a pool of workers, encode,
left_out (bad images); to a target by way of staging; fit <- classifier
"""
