"""Multi-label classification: linear on frozen features, or fine-tuned as a whole."""
