"""BLAKE2 without OpenSSL, which `import hashlib` would load: 4 MB in every process."""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # not CPython, or a version without it
    from hashlib import blake2b

__all__ = ["blake2b"]
