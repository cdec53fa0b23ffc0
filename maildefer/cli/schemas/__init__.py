"""What `--json` prints, as JSON Schema (2020-12): a file for each command, which its `--json-schema` prints.

schema    finds and reads them, and leaves out of what others wrote what does not fit
"""
