"""SHA-256 of files and of texts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(file: str | Path) -> str:
    """Returns the checksum of a file's content, as hexadecimal digits."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sha256_of(texts: Iterable[str]) -> str:
    """Returns the checksum of a sequence of texts, as hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)} ".encode() + encoded)  # the length separates consecutive texts
    return digest.hexdigest()
