"""Latent shards in, checkpoints and samples out. Never imports ray."""
