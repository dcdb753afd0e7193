"""The servers that are started, measured and stopped here."""
