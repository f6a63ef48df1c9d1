"""Adapt a frozen network to unlabelled footage, by the closed form of temporal coherence."""
