"""One decoder in several runtimes, each in a process of its own that is asked in turn: `decode.py` compares them."""
