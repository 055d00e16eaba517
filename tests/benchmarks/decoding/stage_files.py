"""What lies beside a stage's graph for `decode_ours.py`."""

SPEC, TABLE = "spec.json", "embeddings.npy"
