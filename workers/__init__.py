"""The reference application: a blog that posts by mail."""
