"""The networks: every backbone is a ``types.Net``, made from its configuration by ``build``.

Labels are 0..K-1, and label K means "none": that is where a condition was dropped.
"""
