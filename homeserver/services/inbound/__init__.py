"""What other servers send: events into rooms, and what it takes to judge them."""
