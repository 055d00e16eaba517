"""One class a graph: arrays in, arrays out."""
