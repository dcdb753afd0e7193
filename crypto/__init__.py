"""Bytes and JSON: canonical form, hashes, keys and signatures; knows nothing of rooms."""
