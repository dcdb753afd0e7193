"""How fast homeservers are: a load generator, and the servers that it is pointed at."""
