"""Object stores: one port, with an S3 and a directory behind it, and one suite that both pass."""
