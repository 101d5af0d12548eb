"""The truth world: drawn, worded, rendered and read back."""
