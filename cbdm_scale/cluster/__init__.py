"""The only import of ray in the package: the loop on Ray Train workers.

config.py (ClusterConfig) -> connect.py (a cluster) -> launch.py (workers on it) -> group.py
(their process group); console.py brings what they say to the driver.

What Ray does here: place the processes, and start them again when one dies. Checkpoints are
ours; Ray is told of them and never copies them. Importing this folder does not import ray.
"""

from cbdm_scale.cluster.config import ClusterConfig, Published, RankMain, Say
from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.launch import launch

__all__ = ["ClusterConfig", "Published", "RankMain", "Say", "connect", "launch"]
