"""Between the words of the domain and the messages of the wire and of the archive."""
