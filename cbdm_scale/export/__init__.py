"""python -m cbdm_scale.export: a trained network as a folder that others can use.

card.py (README.md, for people) and diffusers.py (the same weights for the library diffusers);
command.py writes all of it.
"""
