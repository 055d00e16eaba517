"""What real inputs do to the tensors: capture, ranges, quantization, and what it costs in answers."""
