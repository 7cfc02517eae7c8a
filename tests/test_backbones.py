"""Low-rank experts of T5, Qwen, Llama and BART: every route equals a plain model, in float64."""

import pytest
import torch
from tiny_backbones import FAMILIES, MIXINGS, batch_of, make_routed, padded_left, routes_of

# Each family with one kind of mixing, and each kind with both kinds of models.
in_each_family = pytest.mark.parametrize(
    ("family", "mixing"), list(zip(FAMILIES, [*MIXINGS] * 2, strict=True))
)


@in_each_family
def test_mixed_routes_give_the_logits_and_losses_of_their_plain_models(family, mixing):
    model = make_routed(family, **MIXINGS[mixing])
    batch = batch_of(model)
    for kind in ("soft", "one_hot"):
        routes_BLE, sums = routes_of(kind, model), []
        logits = model(**batch, routes=routes_BLE).logits
        model.config.label_smoothing = 0.0
        loss = model(**batch, routes=routes_BLE, loss_only=True).loss
        for i, route_LE in enumerate(routes_BLE):
            own = {name: tensor[i : i + 1] for name, tensor in batch.items()}
            plain = model.to_plain(route_LE)
            assert not [name for name in plain.state_dict() if "lora" in name]
            expected = plain(**own)
            is_real = own["labels"][0] != -100
            if not model.config.is_encoder_decoder:
                is_real = own["attention_mask"][0].bool()
            torch.testing.assert_close(logits[i][is_real], expected.logits[0][is_real], rtol=0, atol=1e-10)
            own_labels = own["labels"] if model.config.is_encoder_decoder else own["labels"][:, 1:]
            sums.append(expected.loss.double() * (own_labels != -100).sum())
        # transformers computes the losses of decoder-only models in float32.
        close = 1e-10 if model.config.is_encoder_decoder else 1e-4
        torch.testing.assert_close(loss, sum(sums), rtol=0, atol=close)


@in_each_family
def test_generation_along_mixed_routes_is_that_of_their_plain_models(family, mixing):
    model = make_routed(family, **MIXINGS[mixing])
    batch = batch_of(model)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if not model.config.is_encoder_decoder:
        ids, mask = padded_left(ids, mask)
    options = dict(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    kind, options["num_beams"] = ("one_hot", 1) if mixing == "splits" else ("soft", 3)
    routes_BLE = routes_of(kind, model)
    found = model.generate(ids, attention_mask=mask, routes=routes_BLE, **options)
    for i, route_LE in enumerate(routes_BLE):
        source = ids[i][mask[i].bool()][None]
        plain = model.to_plain(route_LE)
        expected = plain.generate(source, attention_mask=torch.ones_like(source), **options)
        if not model.config.is_encoder_decoder:
            expected = expected[:, source.shape[1] :]
        assert torch.equal(found[i, : expected.shape[1]], expected[0])
