"""Pre-training and fine-tuning: augmentation, the loop, the run folder."""
