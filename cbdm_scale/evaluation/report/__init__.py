"""The report of an evaluation: one page to look at, and its pictures as files."""
