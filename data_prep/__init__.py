"""Readers of published data sets, the long tail, and the writer of shards.

source (what a reader yields) <- digits, cifar (through pickles) -> shards (the writer)
images (any file as pixels), keys, missing <- listing <- imagenet, cub, celeba: sets of files
readers: which data set is read by which, and the options that mean something to it
shards: tars (one shard, its record) in a pool of workers, tables, to a target by way of staging
prepare and __main__ put them together: python -m data_prep NAME --source DIR --out DIR
verify and describe read what was written
"""
