"""The one pass over a file; runs inside the sandbox."""
