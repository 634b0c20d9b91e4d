"""The only import of ray in the package: the loop on Ray Train workers.

options.py (ClusterConfig) -> connect.py (a cluster) -> launch.py (workers on it) ->
process_group.py (of the workers); console.py brings their lines to the driver, stop.py the
request to stop to them, preemption.py the notice that a node will go. pool.py: independent
jobs, such as chunks of images, on as many workers as there are. background.py: one job at a
time beside training, such as an evaluation. local.py: either of them in this process, without
Ray. node_probes.py: questions to every node. ray_internals.py: what is private in Ray and used
all the same.

What Ray does here: place the processes, and start them again when one dies. Checkpoints are
ours; they are reported to Ray, which never copies them. Importing this folder does not import
ray.
"""
