"""Datasets: finding clips, packing them, and batches out of them."""
