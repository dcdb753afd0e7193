"""The HTTP doors of the server."""
