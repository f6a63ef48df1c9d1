"""A strong start, adapted to unlabelled footage: the closed form of temporal coherence, and a learned one."""
