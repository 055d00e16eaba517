"""Sets of conversations on disk: what a line of `set.jsonl` says, and writing down conversations as they are held."""
