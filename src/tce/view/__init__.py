"""Pictures and films of embeddings."""
