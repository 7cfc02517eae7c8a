"""The flags of the commands: one frozen dataclass per command, and the rules that derive from its fields.

May import: io, dataloader. Imports no torch, so that `--help` and errors in flags appear at once.
"""
