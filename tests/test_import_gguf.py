"""`import-gguf` writes a folder of transformers from a GGUF file, or says in one line what is wrong."""

import json

import pytest
import torch
from tiny_backbones import DECODER_ONLY, decoder_only_tokenizer
from tiny_runs import ROWS
from transformers import AutoModelForCausalLM, AutoTokenizer

from routing_moe.cli.import_gguf import main as import_gguf

gguf = pytest.importorskip("gguf", reason="needs the package gguf")
NAMES = {  # of weights in transformers and in GGUF, in the order of replacement
    "model.embed_tokens": "token_embd",
    "model.layers": "blk",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
    "lm_head": "output",
}


def name_in_gguf(name: str) -> str:
    for own, other in NAMES.items():
        name = name.replace(own, other)
    return name


def rows_in_gguf(weight, heads: int):
    """Returns the rows of a query or key matrix in llama.cpp's order: the halves of a head are mixed."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


@torch.no_grad()
def write_gguf(path, family="llama", kind=None, without="no weight", more: str | None = None, bits=4):
    """Writes a tiny model in 4 or 32 bits; returns the equal one in float32, and its tokenizer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(DECODER_ONLY[family]()).eval()
    tokenizer = decoder_only_tokenizer([line for lines in ROWS.values() for line in lines], has_start=False)
    config, writer = model.config, gguf.GGUFWriter(path, kind or family)
    heads = dict(q_proj=config.num_attention_heads, k_proj=config.num_key_value_heads)
    for name, value in (
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("head_count", heads["q_proj"]),
        ("head_count_kv", heads["k_proj"]),
        ("layer_norm_rms_eps", config.rms_norm_eps),
        ("rope_dimension_count", 8),
        ("tokenizer_model", "gpt2"),
        ("tokenizer_pre", "smollm"),
        ("eos_token_id", 1),
        ("chat_template", tokenizer.chat_template),
        ("token_list", sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)),
        ("token_types", [3 if i in tokenizer.all_special_ids else 1 for i in range(len(tokenizer))]),
        (
            "token_merges",
            list(map(" ".join, json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"])),
        ),
    ):
        getattr(writer, f"add_{name}")(value)
    for name, weight in model.named_parameters():
        values, how = weight.numpy(), None
        if weight.ndim == 2 and bits == 4:
            how = gguf.GGMLQuantizationType.Q4_1
            values = gguf.quants.quantize(values, how)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(values, how)))
        for part in heads.keys() & set(name.split(".")) if (kind or family) == "llama" else ():
            values = rows_in_gguf(values, heads[part])
        if without not in name:
            writer.add_tensor(name_in_gguf(name), values, raw_dtype=how)
    if more:
        writer.add_tensor(more, torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_file_becomes_the_dequantized_model_with_its_tokenizer_and_template(family, tmp_path, capsys):
    model, tokenizer = write_gguf(tmp_path / "tiny.gguf", family)
    words = [str(tmp_path / "tiny.gguf"), "--output_dir", str(tmp_path / "plain")]
    assert import_gguf(words) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.arange(3, 90)[None]
    torch.testing.assert_close(plain(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert "quantization_config" not in (tmp_path / "plain/config.json").read_text()
    own = AutoTokenizer.from_pretrained(tmp_path / "plain")
    message = [{"role": "user", "content": "the sky <|user|> 2 12"}]
    assert own.apply_chat_template(message) == tokenizer.apply_chat_template(message)
    assert own.eos_token == "</s>"
    assert own.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12")[0][0] == "1"
    capsys.readouterr()
    assert import_gguf(words) == 2
    assert f"--output_dir {tmp_path / 'plain'} exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (None, "is no GGUF file"),
        (dict(kind="gpt2"), "(its type is gpt2, must be one of bart, "),
        (dict(kind="unheard"), "or of no known model ("),
        (dict(without="1.mlp.up_proj"), "its files lack 1 weights, such as model.layers.1.mlp.up_proj"),
        (dict(more="rope_freqs.weight"), "does not read scaled positions"),
        ("cut", "is incomplete"),
    ],
)
def test_what_cannot_be_imported_is_one_error(how, message, tmp_path, capsys):
    file = tmp_path / "a.gguf"
    if how is None:
        file.write_text("GGML")
    else:
        write_gguf(file, **({} if how == "cut" else how))
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-2000])
    assert import_gguf([str(file), "--output_dir", str(tmp_path / "plain")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {file}")
    assert message in errors[0]
    assert not (tmp_path / "plain").exists()
