"""The deeds of the server, one module per topic: no HTTP and no SQL."""
