"""Multi-label classification: linear classifiers on frozen features, or fine-tuning of the whole network."""
