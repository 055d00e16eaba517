"""The PyTorch stages of VITA-1.5: trainable, and what every exported graph is compared with."""
