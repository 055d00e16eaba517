"""Trained weights in, a bundle out. Knows PyTorch; never imported on a device."""
