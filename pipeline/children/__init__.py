"""Child processes that answer messages, and the messages."""
