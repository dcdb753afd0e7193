"""The administration API that existing tools know."""
