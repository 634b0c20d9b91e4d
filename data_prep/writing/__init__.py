"""The writer: shards, their tables, and a small classifier, to a folder or a store.

shards (a whole data set) <- tars (one shard, its record) in a pool of workers, encode,
left_out (bad images), draft (a file that appears whole); staging (a local folder that does);
fit <- classifier
"""
