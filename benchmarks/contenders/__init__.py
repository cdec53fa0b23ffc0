"""The programs that maildefer is measured beside. Each can be run by hand; its docstring says how."""
