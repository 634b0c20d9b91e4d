"""Recognition (Table 4): a classifier on real and generated images."""
