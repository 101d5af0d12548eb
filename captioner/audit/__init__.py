"""The report of a corpus: a data card, counts, charts, captions, pictures."""
