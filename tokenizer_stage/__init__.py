"""Judged clips in, WebDataset shards of native-aspect latents out."""
