"""One run over one root: what is due, how it is brought into the index, what came of it."""
