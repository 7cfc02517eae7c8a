"""The flags of the commands: one frozen dataclass per command, rules that derive from its fields, errors.

May import: io, dataloader. Imports no torch, so that `--help` and errors in flags appear at once.
"""
