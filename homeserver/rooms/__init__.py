"""Rooms as held in memory: heads, current state, memberships, recent events; what everything above reads."""
