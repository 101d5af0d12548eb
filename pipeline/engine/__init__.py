"""What a stage is, and who runs it."""
