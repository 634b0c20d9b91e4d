"""What is counted of a network."""

from torch import nn


def num_parameters(net: nn.Module) -> int:
    """Numbers that make up the network, the constant table of steps included.

    The paper's code counts that table too (128,000 of its 35,925,507), although it is not
    trained; for what an optimiser holds, count ``net.parameters()``.
    """
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() for tensor in tensors)
