"""The zoo: media, names, lists and tars of every odd kind, made on the spot, with what must come of each."""
