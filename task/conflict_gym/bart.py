"""Write an untrained BART for a conflict gym: one token per word, and per task name or part of it.

    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/conflict_bart
    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/wide_bart --width 32

The weights are random: a gym of made-up words has nothing that a model could know before. Gyms with the same
--words, --tasks, --unseen_tasks and opaque names have the same tokens, whatever their seed. The model has 64
positions, so it trains with --max_input_length 64 or less.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from dataloader.encoding import HIDDEN_NAME
from dataloader.task_splits import Split, load_split
from task.conflict_gym.settings import GymSettings, TinyBartSettings
from task.conflict_gym.skills import made_up_words
from task.written_folder import run_once, saved_settings, written_at_once

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # with BART's ids, 0 to 4
POSITIONS = 64


def word_tokenizer(words: Iterable[str], names: Iterable[str]):
    """Returns a tokenizer of whole words; names such as e2-d3-t007 are split at their hyphens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast  # takes seconds

    parts = dict.fromkeys(part for name in names for part in name.split("-"))
    tokens = dict.fromkeys([*SPECIAL_TOKENS, "[", "]", "-", HIDDEN_NAME, *parts, *words])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def random_bart(tokenizer, width: int, layers: int, init_std: float, seed: int):
    """Returns a BART with random weights and no dropout; it has 4, 2 or 1 heads, as the width allows."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    sizes = {"layers": layers, "attention_heads": math.gcd(width, 4), "ffn_dim": 2 * width}
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()},
        max_position_embeddings=POSITIONS,
        dropout=0.0,  # as are those of attention and of activations by default; the token ids are BART's
        init_std=init_std,
    )
    return BartForConditionalGeneration(config).eval()


def main(argv: list[str] | None = None) -> int:
    return run_once(write, TinyBartSettings, argv, __doc__, check)


def check(settings: TinyBartSettings) -> tuple[dict, Split]:
    """Returns the settings and the split of the gym. Raises InputError."""
    gym = Path(settings.gym)
    return saved_settings(GymSettings, gym), load_split(gym / "split.json")


def write(settings: TinyBartSettings, inputs: tuple[dict, Split]) -> None:
    of_gym, split = inputs
    tokenizer = word_tokenizer(made_up_words(of_gym["words"]), split.all)
    model = random_bart(tokenizer, settings.width, settings.layers, settings.init_std, settings.seed)
    with written_at_once(settings) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"wrote {settings.output_dir}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")
