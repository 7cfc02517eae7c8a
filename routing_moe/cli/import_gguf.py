"""Make a plain model of transformers from a GGUF file, with its tokenizer and chat template.

    routing-moe import-gguf qwen2.5-0.5b-instruct-q8_0.gguf --output_dir models/qwen

Quantized weights are dequantized.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from dataloader.errors import InputError, in_brief
from routing_moe.config.assemble import ImportGgufSettings
from routing_moe.config.choices import PLAIN_MODELS
from routing_moe.config.console import run_command
from routing_moe.io.files import new_folder_problems, replacing_directory


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ImportGgufSettings, argv, __doc__)


def run(settings: ImportGgufSettings) -> None:
    file, folder = settings.file, settings.output_dir
    if not file.is_file() or file.open("rb").read(4) != b"GGUF":
        raise InputError(f"{file} is no GGUF file")
    if find_spec("gguf") is None:
        raise InputError("GGUF files need the package gguf, which is an extra: pip install .[gguf]")
    if problems := new_folder_problems("output_dir", folder):
        raise InputError(problems)
    try:
        plain, tokenizer = load_gguf(file)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # gguf and transformers raise many types of errors
        raise InputError(f"{file} is incomplete, or of no known model ({in_brief(error)})") from None
    with replacing_directory(folder) as new:
        plain.save_pretrained(new)
        tokenizer.save_pretrained(new)
    print(f"{plain.config.model_type}, {plain.num_parameters():,} weights in float32: {folder}")


def load_gguf(file: Path) -> tuple:
    """Returns (plain model, tokenizer). Raises errors of many types."""
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoConfig, AutoTokenizer

    from routing_moe.model.loading import auto_class, load_checked

    reader = GGUFReader(file)  # refers to each tensor, so that the file is complete
    if any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors):
        raise ValueError("transformers does not read scaled positions, rope_freqs, as Llama 3.1 has them")
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    if config.model_type not in PLAIN_MODELS:
        raise ValueError(f"its type is {config.model_type}, must be one of {', '.join(PLAIN_MODELS)}")
    load = partial(auto_class(config).from_pretrained, file.parent, output_loading_info=True)
    read, _ = load_checked(partial(load, gguf_file=file.name, dtype="float32"), file, "cannot be read")
    plain = auto_class(config).from_config(config)  # of a quantized model, transformers saves nothing
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    kind = reader.fields.get("tokenizer.ggml.pre")
    if kind and kind.contents() == "smollm":  # which transformers does not know: digits are apart
        parts = [Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(parts)
    return plain, tokenizer
