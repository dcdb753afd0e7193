"""Simplified sliding sync (MSC4186): the same log as `/sync` reads, room by room, as far as a client wants it."""
