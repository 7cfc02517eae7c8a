"""What decoder-only models are published with: dates in chat templates."""

import pytest
from tiny_backbones import plain_models
from transformers import AutoTokenizer

from dataloader.encoding import rendered

plain = pytest.fixture(scope="module")(plain_models)


def test_prompts_are_the_same_on_every_day_and_ask_for_no_thoughts(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain("llama"))
    tokenizer.chat_template = (
        "{% set today = strftime_now('%d %b %Y') %}{{ today ~ '; ' ~ strftime_now('%d %B %Y') }}: "
        "{{ messages[0].content }}{% if enable_thinking | default(true) %}<think>{% endif %}"
    )
    assert rendered(tokenizer, "sky") == "26 Jul 2024; 26 July 2024: sky"
