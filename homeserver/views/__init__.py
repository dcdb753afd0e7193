"""What a reader is shown: tokens, filters, the client form of events, unread counts."""
