"""What the admin service does, one module a verb."""
