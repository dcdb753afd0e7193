"""Restante: a federated Matrix homeserver."""
