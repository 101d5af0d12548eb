"""The built-in captioner's training: examples with true captions, the loop, and any captioner's figures."""
