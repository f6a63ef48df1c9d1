"""Behaviours without labels: clusters of windows of embeddings, segments of videos, repeated motion."""
