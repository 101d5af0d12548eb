"""Raw media in, judged clips out. The first files are the vocabulary of all four packages."""

__version__ = "0.1.0"
