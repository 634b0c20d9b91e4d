"""From images in any layout to shards: readers, the writer, and checks of what was written.

source (what a reader yields), tars (their members and samples), options
readers -> writing -> prepare, __main__: python -m data_prep NAME --source DIR --out DIR
checking: python -m data_prep verify | describe ROOT
"""
