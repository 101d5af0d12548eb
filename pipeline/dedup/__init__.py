"""Are two clips the same footage? Pure functions of their prints."""
