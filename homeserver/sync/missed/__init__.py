"""What a device missed while it was away, over all rooms: how much it is, and all of it, page by page."""
