"""Local folders and URLs, the names in a run's folder, JSON and options that may be wrong.

folder.py: files in a folder, local or remote; remote.py opens URLs and tries again what may
pass; disk.py: errors of a disk that is full; run_dir.py: the names in a run's folder; lease.py:
who works in a folder now; json.py: JSON that may be damaged; checks.py: bounds of a dataclass's
fields, said in their types; path_options.py: options that are paths; wording.py: errors stay
short.
"""
