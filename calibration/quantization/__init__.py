"""Smaller weights and activations, stage by stage, in graphs that engines run with integer kernels."""
