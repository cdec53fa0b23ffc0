"""Lifecycle tests: real pools, real forks, real signals."""
