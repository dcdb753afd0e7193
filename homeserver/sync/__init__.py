"""Reading on from a cursor: `GET /sync`."""
