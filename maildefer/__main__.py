"""The command line: `python -m maildefer`."""

from __future__ import annotations

from maildefer.cli import main

if __name__ == "__main__":
    main()
