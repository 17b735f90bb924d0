"""What the registry knows about schemas, without any I/O, clock or wire."""
