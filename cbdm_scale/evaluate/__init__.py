"""python -m cbdm_scale.evaluate: every number of a run's images, a report, and both in MLflow.

options.py (what is asked for) -> inputs.py (what is there: data, extractor, sets) -> compute.py
(sets, features, numbers) -> pictures.py (images for the report) -> kept.py (files) and tell.py
(MLflow, the last lines); command.py does one after the other.
"""
