"""Recognition (Table 4): a classifier of real long-tailed images and generated ones."""
