"""The command line: options are dataclasses' fields, read once, for every command.

command    options of dataclasses, --help and --help-all, what was typed, completion, main
"""
