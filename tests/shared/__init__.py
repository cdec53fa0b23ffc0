"""A shared filesystem of one's own, tried: two hosts, each through a mount of its own."""
