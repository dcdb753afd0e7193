"""What is measured, one module for each way in which people use a homeserver."""
