"""The command line: options are dataclasses' fields, read once, for every command.

command    options of dataclasses, --help and --help-all, what was typed, main
completion what makes a shell complete the words of cbdm
signals    what ends a command, and with which exit status
"""
