"""From rare classes to a balanced data set: generate, filter, write.

quotas.py: how many images each class lacks; filters.py: thresholds from real images, verdicts
on generated ones; rounds.py: generating until the classes are filled or the limit is reached;
provenance.py: what is on record of each image; writing.py: the data set, as shards and in other
forms; page.py: balance.html.
"""
