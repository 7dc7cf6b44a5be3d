"""Training: one run, from the pretrained encoder to its predictions."""
