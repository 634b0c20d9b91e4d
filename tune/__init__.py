"""The search for tau, the probability of dropped labels and the label distribution.

search_tau.py (the command) -> search.py (which trial comes next, what became of it, the end)
What is searched: options.py, space.py (options and their ranges), ask.py (the next values).
A trial: trial.py (one run of the train command, rung by rung), on_ray.py (trials on Ray Tune;
the only import of ray here). Rules without a cluster: objective.py (what is compared),
schedule.py (rungs, who goes on), ledger.py (what is known of every trial, on disk).
What came out: findings.py and standings.py (numbers), conclude.py and report/ (preset, page).

``tune`` here is this folder; Ray's is ``ray.tune``. Importing it imports neither ray nor mlflow.
"""
