"""What an operator asks of pools, from outside: look, stop, pause, resume, reload; here, and through the mount."""
