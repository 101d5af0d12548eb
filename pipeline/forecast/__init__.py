"""What a run over some sources would take, from a sample of them: `framemill plan`."""
