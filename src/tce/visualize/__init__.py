"""Maps, films and pictures of results."""
