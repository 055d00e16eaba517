"""A smaller bundle against the one it was made from: the first value that is off, and what is to blame."""
