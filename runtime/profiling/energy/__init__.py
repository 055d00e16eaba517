"""Energy, where the machine reports it: each source in a file of its own, all read the same way."""
