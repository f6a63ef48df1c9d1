"""Footage: decoding, datasets' layouts, sampling."""
