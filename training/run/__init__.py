"""A training run: the loop, its checkpoints, its samples and figures, and models as shipped."""
