"""Options of every command; importing them loads neither torch nor numpy."""
