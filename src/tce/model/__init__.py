"""Networks, encoders, classifiers and every checkpoint format."""
