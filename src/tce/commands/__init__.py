"""Commands that belong to no other room: demo, info."""
