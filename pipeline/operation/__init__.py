"""What an operator sees of a corpus and its runs: reasons by class, receipts, metrics, cost."""
