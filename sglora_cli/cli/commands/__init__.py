"""One file a command; its work is done in a room below."""
