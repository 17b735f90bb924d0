"""The ports, made of PostgreSQL, its client programs, key files and other processes."""
