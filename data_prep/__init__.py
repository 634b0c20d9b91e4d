"""Readers of published and of the user's own data, the long tail, and the writer of shards.

source (what a reader yields) <- readers (the table of them) -> shards (the writer)
    digits, cifar (through pickles)
    images (any file as pixels), keys, missing <- listing (files that a list names)
        <- imagenet, cub, celeba, folder (through class_folders or label_tables)
    foreign_shards <- samples <- foreign_tars, copies (of tars far away)
    synthetic
shards: tars (one shard, its record) in a pool of workers, tables, to a target by way of staging
prepare and __main__ put them together: python -m data_prep NAME --source DIR --out DIR
verify and describe read what was written
"""
