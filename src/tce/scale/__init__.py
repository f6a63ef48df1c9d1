"""Work spread over a cluster."""
