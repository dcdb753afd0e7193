"""Devices and keys of other servers' users (SS "Device Management", "End-to-End Encryption")."""
