"""Cursors that push outward: other servers."""
