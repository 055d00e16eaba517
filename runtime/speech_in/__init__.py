"""Speech on its way in: samples to embeddings while the user speaks."""
