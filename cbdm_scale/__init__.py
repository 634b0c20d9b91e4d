"""Class-balancing diffusion models, trained on many machines.

types, labels, draws, parse, kinds, storage
data -> diffusion -> models -> losses -> training -> sampling -> evaluation
'------------- plain torch: no ray, no mlflow -------------------------'
downstream (the classifier of Table 4) and report (a page of what was found) are plain too.
tracking (mlflow) and cluster (ray) stand beside them; run is one rank, keeper its checkpoints,
judge its evaluations.
The commands: train, sample, evaluate, classify.
"""

__version__ = "0.1.0"
