"""Filmstrips in, captions out."""
