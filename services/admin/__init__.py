"""The admin service: sees, steers and recovers the whole system."""
