"""The search for tau, the probability of dropped labels and the label distribution.

search_tau.py (the command) -> carry_out.py (a search from its first check to its report)
What is searched: options.py, space.py (options and their ranges), ask.py (the next values),
identity.py (what makes a search this one and no other).
The trials: search.py (which comes next, what became of it), ledger.py (what is known of each,
on disk), trial.py (one run of the train command), on_ray.py (trials on Ray Tune; the only
import of ray here). Rules: objective.py (what is compared), schedule.py (the rungs).
What came out: findings.py (finalists, intervals, sentences), conclude.py (preset file, page,
MLflow), page.py and charts.py (the page).

``tune`` here is this folder; Ray's is ``ray.tune``. Importing it imports neither ray nor mlflow
(on_ray.py does inside its functions).
"""
