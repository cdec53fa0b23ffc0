"""Whether a place is safe for a queue: facts, verdicts and remedies."""
