"""What is told of the commands beside their options.

examples    command lines that each `--help` and manual page ends with
pages       the manual pages, made from the commands
"""
