"""The miniature checkpoint: data, training by the three published stages, evaluation and packing."""
