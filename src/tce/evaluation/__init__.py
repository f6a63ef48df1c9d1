"""Protocols that evaluate embeddings and classifiers, and their reports."""
