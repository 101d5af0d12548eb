"""Who may write to a corpus: one writer at a time, on any store."""
