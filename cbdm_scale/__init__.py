"""Class-balancing diffusion models, trained on many machines.

types, labels, draws, storage
data -> diffusion -> models -> losses -> training -> sampling -> evaluation
'------------- plain torch: no ray, no mlflow -------------------------'
tracking (mlflow) and cluster (ray) stand beside them; train, sample and evaluate are the commands.
"""

__version__ = "0.1.0"
