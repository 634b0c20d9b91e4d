"""Class-balancing diffusion models, trained on many machines.

types, labels, draws, storage
data -> diffusion -> models -> losses -> training -> sampling -> evaluation
'------------- plain torch: no ray, no mlflow -------------------------'
downstream is the classifier of Table 4, plain torch too; classify is its command.
tracking (mlflow) and cluster (ray) stand beside them; run is one rank; train is the command.
"""

__version__ = "0.1.0"
