"""The one place where the version stands; setup.cfg reads it from here without importing the package."""

from __future__ import annotations

VERSION = "0.1.0"
