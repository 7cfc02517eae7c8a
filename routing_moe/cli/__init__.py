"""The commands: parse flags, check, run, write.

May import: everything in this package.
"""
