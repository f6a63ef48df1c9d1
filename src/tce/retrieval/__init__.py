"""An index of frames, and search for moments in it."""
