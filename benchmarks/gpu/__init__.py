"""How fast the train loop is on a GPU, and where the time goes."""
