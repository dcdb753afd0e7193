"""The client-server API: one module per topic of the specification."""
