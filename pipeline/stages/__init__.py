"""The stages of the data side: thin, over pure code, the corpus and the engine."""
