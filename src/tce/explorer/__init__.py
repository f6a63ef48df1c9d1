"""One HTML page that shows the frames of videos on a map and plays them."""
