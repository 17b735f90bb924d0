"""The registry service: schemas, subjects and the log of their changes."""
