"""Memory bank, negative mining and the contrastive losses."""
