"""The server-server API: one module for each topic of the specification."""
