"""The train loop, what a checkpoint holds, and what the loop knows of the cluster."""
