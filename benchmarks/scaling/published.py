"""Published figures of networks and GPUs, each with its source, and what is assumed of them.

A vendor's number is a peak. Of networks the model takes 80 % (what NCCL reaches of NVLink and
of adapters in large all-reduces: 235 of 300 GB/s on an A100 node, 377 of 400 between B200
nodes, in the network chapter of Stas Bekman's Machine Learning Engineering), of GPUs a
stated share: nobody has published one for these networks.
"""

from dataclasses import dataclass

from benchmarks.scaling.model import Device, Network

REACHED = 0.8
"""Share of a network's peak that a large all-reduce reaches."""
HOP_S = 10e-6
"""Seconds of a hop between nodes, with RDMA: half of what 16 ranks take for a small all-reduce
divided by its hops; TCP takes several times as long."""
TCP_HOP_S = 50e-6
LAUNCH_S = 5e-6
"""Seconds to start a kernel from PyTorch without a graph or torch.compile: an assumption."""
UTILISATION = 0.25
"""Share of the bf16 peak that the arithmetic reaches. More of it makes the network matter more:
25 % is high for a U-Net of 128 channels, and so on the pessimistic side here."""


@dataclass(frozen=True)
class Place:
    """A kind of cluster, in peak figures."""

    name: str
    nvlink: float
    """GB/s of a GPU within its node, each direction."""
    node_gbit: float
    """Gbit/s of all adapters of a node."""
    tflops: float
    """Dense bf16 of one GPU."""
    source: str
    hop: float = HOP_S

    @property
    def network(self) -> Network:
        inside, between = self.nvlink * 1e9, self.node_gbit / 8 * 1e9
        return Network(inside=REACHED * inside, between=REACHED * between, latency=self.hop)

    @property
    def device(self) -> Device:
        return Device(flops=UTILISATION * self.tflops * 1e12, launch=LAUNCH_S)


H100 = (
    "NVIDIA DGX H100 data sheet: NVLink 900 GB/s both directions, 8 x ConnectX-7 of 400 "
    "Gbit/s; NVIDIA H100 SXM data sheet: 989 TFLOPS bf16 without sparsity. AWS p5.48xlarge "
    "(EFA, 3,200 Gbit/s) has the same figures"
)
A100 = (
    "NVIDIA DGX A100 data sheet: NVLink 600 GB/s both directions, 8 x ConnectX-6 of 200 "
    "Gbit/s; NVIDIA A100 data sheet: 312 TFLOPS bf16"
)
P4D = "AWS p4d.24xlarge: 8 A100 with NVSwitch of 600 GB/s, 400 Gbit/s of EFA a node"
ONE_ADAPTER = "the same node with one such adapter and TCP"
PLACES = (
    Place("H100, 8 x 400 Gbit/s InfiniBand", 450, 3200, 989, H100),
    Place("A100, 8 x 200 Gbit/s InfiniBand", 300, 1600, 312, A100),
    Place("A100, 400 Gbit/s EFA", 300, 400, 312, P4D),
    Place("A100, 100 Gbit/s Ethernet", 300, 100, 312, ONE_ADAPTER, TCP_HOP_S),
    Place("A100, 25 Gbit/s Ethernet", 300, 25, 312, ONE_ADAPTER, TCP_HOP_S),
)
