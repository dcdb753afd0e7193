"""The room core: pure functions over events, without clock, socket, file or database (STYLE: sans-I/O)."""
