"""What this server answers to other servers about the rooms that it is in."""
