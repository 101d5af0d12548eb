"""The caption quality report."""
