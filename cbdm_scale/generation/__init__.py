"""Sets of images of a trained network, made on all workers; what is there is kept."""
