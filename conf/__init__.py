"""Settings and boot modules."""
