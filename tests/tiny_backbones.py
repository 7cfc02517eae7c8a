"""Tiny models of other families than BART, made from configurations."""

from pathlib import Path

import torch
import transformers as hf
from conftest import one_hot_routes
from tiny_runs import ROWS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from routing_moe import RoutedModel

T5 = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0, decoder_start_token_id=0)
CAUSAL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, eos_token_id=1)
WINDOW = dict(sliding_window=4, head_dim=8)  # shorter than inputs
WINDOW["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
SCALED = dict(embedding_multiplier=12, logits_scaling=8, residual_multiplier=0.2, attention_multiplier=0.3)
GATED = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
BART = dict(d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, dropout=0.0) | {
    f"{side}_{what}": number
    for side in ("encoder", "decoder")
    for what, number in (("layers", 2), ("attention_heads", 4))
}
# Decoder-only ones: without tokens around texts; with <s> before them and no token for padding.
CAUSAL |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, vocab_size=99)
DECODER_ONLY = {
    "qwen2": lambda: hf.Qwen2Config(pad_token_id=0, **CAUSAL),
    "llama": lambda: hf.LlamaConfig(bos_token_id=96, tie_word_embeddings=True, **CAUSAL),
    "qwen3": lambda: hf.Qwen3Config(head_dim=8, **CAUSAL),
    "mistral": lambda: hf.MistralConfig(bos_token_id=96, sliding_window=5, **CAUSAL),
    "smollm3": lambda: hf.SmolLM3Config(
        bos_token_id=None, pad_token_id=0, no_rope_layer_interval=2, **CAUSAL
    ),
    "gemma2": lambda: hf.Gemma2Config(pad_token_id=0, **WINDOW, **CAUSAL),
    "gemma3": lambda: hf.Gemma3TextConfig(pad_token_id=0, **WINDOW, **CAUSAL),
    "granite": lambda: hf.GraniteConfig(pad_token_id=0, **SCALED, **CAUSAL),
    "olmo2": lambda: hf.Olmo2Config(pad_token_id=0, **CAUSAL),
    "phi3": lambda: hf.Phi3Config(pad_token_id=0, **CAUSAL),  # maps of several parts in one
}
NOT_DROPPED = dict(attention_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0)
TWO_EXPERTS = dict(num_local_experts=2, num_experts_per_tok=1, experts_implementation="eager")
FAMILIES = {
    "t5": lambda: hf.T5Config(vocab_size=96, **T5),
    "flan-t5": lambda: hf.T5Config(vocab_size=96, **T5, **GATED),
    "bart": lambda: hf.BartConfig(vocab_size=96, max_position_embeddings=64, **BART),
    "m2m100": lambda: hf.M2M100Config(vocab_size=96, **BART, **NOT_DROPPED),  # shifts no labels itself
    "marian": lambda: hf.MarianConfig(vocab_size=96, pad_token_id=0, decoder_start_token_id=0, **BART),
    "mixtral": lambda: hf.MixtralConfig(**TWO_EXPERTS, **CAUSAL),  # behind the attention
    **DECODER_ONLY,
}
# Flags of runs with low-rank experts, and with soft routes.
LORA = dict(expert_kind="lora", lora_rank=4, init_eps=None, max_input_length=40, max_output_length=12)
SOFT = LORA | dict(router_mode="softmax", eval_period=6)
MEASURES = ["performance", "answer_loss"]
MIXINGS = {
    "products": {},
    "factors": dict(lora_mixing="factors"),
    "splits": dict(lora_mixing="factors", lora_splits=2),
}


SPECIAL = dict(pad_token_id=0, eos_token_id=1, forced_eos_token_id=1)
# What the commands take besides a BART; a byte is a token of ByT5, whose encoder is deeper than its decoder.
WITH_ENCODER = {
    "t5": lambda: hf.T5Config(vocab_size=96, **T5),
    "flan-t5": lambda: hf.T5Config(vocab_size=96, **T5, **GATED),
    "mt5": lambda: hf.MT5Config(vocab_size=96, **T5, **GATED),
    "byt5": lambda: hf.T5Config(vocab_size=384, num_decoder_layers=1, **T5, **GATED),
    "mbart": lambda: hf.MBartConfig(
        vocab_size=97, max_position_embeddings=64, decoder_start_token_id=96, **SPECIAL, **BART
    ),
    "pegasus": lambda: hf.PegasusConfig(
        vocab_size=96, max_position_embeddings=64, decoder_start_token_id=0, **SPECIAL, **BART
    ),
}
CHAT = (
    "{% for m in messages %}<|user|>\n{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_plain(folder: Path, family: str, texts: list[str]) -> Path:
    """Writes a plain model and its tokenizer, whose tokens around a text are the family's."""
    torch.manual_seed(1)
    if family in DECODER_ONLY:
        hf.AutoModelForCausalLM.from_config(DECODER_ONLY[family]()).save_pretrained(folder)
        decoder_only_tokenizer(texts, has_start=family in ("llama", "mistral")).save_pretrained(folder)
        return folder
    model = hf.AutoModelForSeq2SeqLM.from_config(WITH_ENCODER[family]())
    if family in ("flan-t5", "mt5", "byt5"):  # whose files have weights that their configuration would tie
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder)
    tokenizer = hf.ByT5Tokenizer() if family == "byt5" else make_tokenizer(texts)
    if family == "mbart":  # the language is after the end of a text, and starts an answer
        tokenizer.add_special_tokens({"additional_special_tokens": ["en_XX"]})
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s> en_XX", special_tokens=[("</s>", 1), ("en_XX", 96)]
        )
    tokenizer.save_pretrained(folder)
    return folder


def plain_models(tmp_path_factory):
    """A fixture, plain(family): the folder of a plain model, whose tokenizer knows the gym of `world`."""
    place = tmp_path_factory.mktemp("plain")
    texts = [f" [{task}] {line}" for task, lines in ROWS.items() for line in lines]

    def written(family: str):
        if not (place / family).exists():
            write_plain(place / family, family, texts)
        return place / family

    return written


def runs_of(world, plain):
    """A fixture, run_of(family, **flags): the folder of a run with soft routes, made once; it is scored."""

    def folder(family: str = "t5", **flags):
        name = "-".join(["run_of", family, *map(str, flags.values())])
        if not (world / name).exists():
            world.run(name, bart=plain(family), **SOFT | flags, do_predict=True, measures=MEASURES)
        return world / name

    return folder


def make_plain(family: str) -> hf.PreTrainedModel:
    """Returns a plain model in evaluation mode."""
    config = FAMILIES[family]()
    kind = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    return kind.from_config(config).eval()


def make_routed(family: str, num_experts: int = 4, dtype=torch.float64, **fields) -> RoutedModel:
    """Returns a model whose experts all differ from 0."""
    sizes = dict(lora_rank=3, lora_alpha=6, router_input_dim=8, task_names=["a", "b", "c"])
    sizes |= dict(router_mode="softmax", lora_targets="attention" if family == "mixtral" else "all")
    model = RoutedModel.from_backbone(make_plain(family).to(dtype), num_experts, **(sizes | fields)).to(dtype)
    make_differ(model)
    return model


def make_differ(model) -> None:
    """Gives the experts weights that are not 0."""
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.3)


def padded_left(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs padded at the right and their mask with the padding at the left."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def make_tokenizer(texts: list[str]) -> hf.PreTrainedTokenizerFast:
    """Returns a tokenizer of bytes and their frequent pairs, with </s> at the end of each text."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = sorted(
        {byte for text in ("\n", *texts) for byte, _ in pairs.pre_tokenizer.pre_tokenize_str(text)}
    )
    trainer = trainers.BpeTrainer(
        vocab_size=96, special_tokens=special, initial_alphabet=sorted(set("".join(alphabet)))
    )
    pairs.train_from_iterator(texts, trainer)
    pairs.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=pairs, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def decoder_only_tokenizer(texts: list[str], has_start: bool) -> hf.PreTrainedTokenizerFast:
    """Returns a tokenizer with a chat template: with <s> before texts and none for padding, or neither."""
    tokenizer = make_tokenizer(texts)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "<|user|>", "<|assistant|>"]})
    around = dict(single="<s> $A" if has_start else "$A", special_tokens=[("<s>", 96)])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**around)
    tokenizer.chat_template = ("<s>" if has_start else "") + CHAT
    if has_start:
        tokenizer.pad_token = None
    return tokenizer


def batch_of(model, B: int = 4, vocabulary: int = 96) -> dict[str, torch.Tensor]:
    """Returns inputs of different lengths, padded at the right, and labels."""
    ids = torch.randint(3, vocabulary, (B, 9))
    mask = (torch.arange(9) < torch.tensor([6, 9, 4, 8])[:B, None]).long()
    ids = ids * mask
    if model.config.is_encoder_decoder:
        labels = torch.randint(3, vocabulary, (B, 5))
        labels[1, 3:] = -100
    else:
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :3] = -100
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def routes_of(kind: str, model, B: int = 4) -> torch.Tensor:
    logits_BLE = torch.randn(B, model.config.num_layers, model.config.num_experts, dtype=torch.float64)
    if kind == "one_hot":
        return one_hot_routes(logits_BLE.argmax(-1), model.config.num_experts)
    return logits_BLE.softmax(-1)
