"""Text encoders by name, and the features that they give of captions."""
