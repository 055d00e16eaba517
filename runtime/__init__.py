"""Bundle in, conversation out: numpy and an inference engine; no torch."""
