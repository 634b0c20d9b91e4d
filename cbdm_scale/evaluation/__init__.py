"""Who evaluates when (in training, beside it, by command), the scores on record, the report."""
