"""The files of a checkpoint → configuration and named tensors, read lazily; errors that name file and tensor."""
