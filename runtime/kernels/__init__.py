"""Kernels of our own for ONNX Runtime on a CPU: attention, products with weights in 4 and 8 bits, decoder layers."""
