"""From videos to embeddings, and embeddings on disk."""
