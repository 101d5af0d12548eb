"""Latent shards in, a trained text-to-video model and its samples out; never imports ray or av."""
