"""The protocols by which embeddings and classifiers are judged."""
