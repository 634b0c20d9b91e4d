"""Label fidelity: does a classifier trained on real images see the class that was asked for?

FID hides mixed-up classes: a set of images may be right as a whole while every label is wrong.

Shapes: N = images, K = classes.
"""

from torch import Tensor


def label_hits(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Whether the largest logit (N, K) is that of the label (N,): (N,) bool, on the CPU."""
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the extractor knows {logits.shape[1]} classes and the data set has "
            f"{num_classes}. Use the classifier.safetensors of this data set."
        )
    return logits.argmax(dim=1).cpu() == labels.cpu()
