"""Says what lies after a position, and wakes whoever waits for it."""
