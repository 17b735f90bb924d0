"""What a caller can do, a module each. They await ports and know neither the wire nor the database."""
