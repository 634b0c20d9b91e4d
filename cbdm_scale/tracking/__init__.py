"""What a run logs to MLflow, by way of a spool that outlives the server and the process.

tracker.py (what the loop calls) -> spool.py (records on disk; records.py: what one is)
-> sender.py (records to MLflow)
runs.py: one MLflow run per run folder; models.py: a checkpoint as a model;
log_evaluation.py: a finished evaluation; client.py: MLflow's client, and the names it takes;
errors.py: what a server or database answers instead, and the cure;
mlflow_internals.py: what MLflow does inside and is done here as well.
``mlflow`` itself is imported by the functions that need it: importing this folder is free.
"""
