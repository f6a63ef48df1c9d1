"""A network for others: its files without private paths, and a model card."""
