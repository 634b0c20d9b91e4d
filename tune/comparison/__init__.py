"""A comparison of methods at equal compute: each at its own best, chosen on other images.

protocol.py   what is compared with what, a file
cost.py       what a training step of each method costs, in steps of the control
networks.py   trains a network, and keeps its averaged weights at every stop
sets.py       makes the images of a network at a stop and strength, and keeps their features
scores.py     the numbers of a half of a set against a half of the real images
choice.py     the best stop and strength on one half, reported on the other
ranks.py      how well the order of methods at an earlier stop tells that at the last
findings.py   means, paired differences and their intervals over seeds; the table
processes.py  jobs in processes of their own, which end with this one
run.py        a comparison from its first check to its results
"""
