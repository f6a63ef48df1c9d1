"""Was it worth it on this footage? The start, its adaptation and other networks compared, and a verdict."""
