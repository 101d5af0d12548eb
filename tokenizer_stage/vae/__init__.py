"""Video VAEs by name, their geometry, training and evaluation."""
