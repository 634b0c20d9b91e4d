"""The search for tau, the probability of dropped labels and the label distribution.

compare.py and comparison/ compare methods at equal compute; the rest is the search's:

search_tau.py    the command
run.py           a search from its first check to its results
options.py       options; space.py: what is searched, in which ranges
identity.py      what makes a search this one and no other, and its folder
sampler.py       the values of the next trial (Optuna's TPE), importance of parameters
search.py        which trial comes next, and what became of it
trials.py        what is known of each trial, on disk
trainable.py     one trial: a run of the train command, reported rung by rung
stopping.py      what a signal to the search does
ray_trials.py    trials on Ray Tune; pbt.py: population based training there
objective.py     what is compared; schedule.py: the rungs, after how many images
analysis.py      finalists, intervals, sentences
results.py       preset file, page, MLflow
page.py          the page, from templates/; figures.py: its charts

``tune`` here is this folder; Ray's is ``ray.tune``. Importing it imports neither ray nor mlflow
(ray_trials.py and pbt.py do inside their functions).
"""
