"""Which ONNX operators an engine's parser takes, as its makers published it, and whether a graph keeps to them."""
