"""The maths of noise."""
