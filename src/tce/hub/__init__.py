"""Checkpoints on the Hugging Face Hub, fetched and uploaded where the user named an address."""
