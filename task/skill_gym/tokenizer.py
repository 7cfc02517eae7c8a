"""The tiny BART's tokenizer: byte-level BPE in which every word of the invented world is one token.

It encodes and decodes any text (unknown words are split into bytes), adds `<s> .. </s>`, and has BART's
special tokens with BART's ids.
"""

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from task.skill_gym.generate import fresh_rows
from task.skill_gym.stories import document
from task.skill_gym.tasks import TASKS

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _words(seed: int, documents: int, rows_per_task: int):
    """Texts with every word of the world and of the gym's formats; they only train the BPE merges."""
    rng = random.Random(f"{seed} tokenizer")
    for _ in range(documents):
        yield " " + document(rng)
    for task in TASKS:
        rows = fresh_rows(task, rng)
        for _ in range(rows_per_task):
            row = next(rows)
            yield f" [{task.name}] {row.text}"
            yield " " + row.answers[0]


def train_tokenizer(
    seed: int = 0, vocab_size: int = 1536, documents: int = 20_000, rows_per_task: int = 200
) -> PreTrainedTokenizerFast:
    """A fast tokenizer of at most `vocab_size` tokens, trained on documents and on rows of all tasks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_words(seed, documents, rows_per_task), trainer)
    return as_bart_tokenizer(tokenizer)


def as_bart_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose vocabulary begins with SPECIAL_TOKENS as one that adds `<s> .. </s>`."""
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
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
