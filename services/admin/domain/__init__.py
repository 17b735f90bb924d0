"""What the admin service decides with: pure."""
