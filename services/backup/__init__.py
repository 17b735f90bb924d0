"""The backup service: backups, their archive of changes, and restores."""
