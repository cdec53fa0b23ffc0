"""Power cuts on local filesystems: every block write is recorded, and the disk is rebuilt as it was at any moment."""
