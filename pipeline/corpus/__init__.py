"""The folder on disk: every format in it, both ways."""
