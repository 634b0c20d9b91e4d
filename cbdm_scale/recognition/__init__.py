"""A recognition run: sets.py finds what is learnt and tested on, rank.py is one worker."""
