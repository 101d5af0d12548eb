"""The confined child process that decodes untrusted media."""
