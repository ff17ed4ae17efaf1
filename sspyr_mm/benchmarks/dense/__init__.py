"""Detection, instance segmentation and semantic segmentation."""
