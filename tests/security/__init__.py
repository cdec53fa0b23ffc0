"""What `docs/security.md` says is tried: each row of its tables by a test of that name."""
