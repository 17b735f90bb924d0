"""What implements the ports. Each module translates its own driver's errors."""
