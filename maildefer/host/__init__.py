"""The host: who it is, what runs on it and where that is written down. Knows no queue and no mail."""
