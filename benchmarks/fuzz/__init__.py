"""Files from strangers: valid examples, damaged or made evil, read by the project's readers.

formats.py    what is read: a valid example of each kind, and the project's own reader
mutate.py     seeded damage: bytes, JSON, safetensors, zip, tar, parquet
attacks.py    what a person with intent would send
sandbox.py       a child process with limits, which tells what a reader did
__main__.py   the run, and its table
"""
