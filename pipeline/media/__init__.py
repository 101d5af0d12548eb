"""Files in, upright frames with times out: the only code that imports a codec."""
