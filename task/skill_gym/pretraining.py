"""The pre-training of the tiny BART: batches of noisy documents, steps, and the state to resume from."""

import random
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from dataloader.errors import InputError
from routing_moe.config.flags import differences
from task.skill_gym.denoising import add_noise
from task.skill_gym.pretrain_settings import PretrainSettings
from task.skill_gym.stories import document

SAVE_EVERY = 250


def tiny_config(
    tokenizer: PreTrainedTokenizerFast,
    d_model: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: int = 1024,
    init_std: float = 0.05,
) -> BartConfig:
    """Configuration of a BART with `layers` encoder and `layers` decoder layers."""
    return BartConfig(
        vocab_size=len(tokenizer),
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=2 * d_model,
        decoder_ffn_dim=2 * d_model,
        max_position_embeddings=positions,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=init_std,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
    )


def pad(rows: list[list[int]], pad_id: int) -> torch.Tensor:
    """Token ids of B rows as one tensor (B, length of the longest row), padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])


def batch(
    tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings, step: int
) -> dict[str, torch.Tensor]:
    """The batch of a step: input_ids and attention_mask (B, S), labels (B, T).

    It depends only on (seed, step).
    """
    rng = random.Random(f"{settings.seed} {step}")
    texts = [" " + document(rng) for _ in range(settings.batch_size)]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    bos, eos, mask = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id
    stop = tokenizer.convert_tokens_to_ids("Ġ.")
    noisy = [[bos, *add_noise(rng, ids, mask, stop), eos] for ids in documents]
    input_ids_BS = pad(noisy, tokenizer.pad_token_id)
    return {
        "input_ids": input_ids_BS,
        "attention_mask": (input_ids_BS != tokenizer.pad_token_id).long(),
        "labels": pad([[bos, *ids, eos] for ids in documents], -100),
    }


def learning_rate(settings: PretrainSettings, step: int) -> float:
    """The learning rate of a step: linear warm-up, then linear decay to zero."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay = (settings.steps - step) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * min(warmup, decay)


def pretrain(
    settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast, state_file: Path | None = None
) -> tuple[BartForConditionalGeneration, float]:
    """The trained model and its mean loss (nats per token) over the last 100 steps.

    If a `state_file` is given, the state is saved to it every `SAVE_EVERY` steps, and an existing file is
    resumed from. Raises InputError if that file was written with other settings.
    """
    torch.manual_seed(settings.seed)
    model = BartForConditionalGeneration(tiny_config(tokenizer, settings.d_model, settings.layers)).train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    losses = _resume(state_file, model, optimizer, settings)
    progress = tqdm(range(len(losses), settings.steps), desc="pre-training", mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss = model(**batch(tokenizer, settings, step)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            progress.set_postfix(loss=f"{sum(losses[-50:]) / 50:.3f}")
        if state_file and len(losses) % SAVE_EVERY == 0:
            _save_state(state_file, model, optimizer, settings, losses)
    return model.eval(), sum(losses[-100:]) / len(losses[-100:])


def _save_state(
    state_file: Path,
    model: BartForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    settings: PretrainSettings,
    losses: list[float],
) -> None:
    """Write the state under another name and rename it, so that an interruption keeps the previous state."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    partial = state_file.with_suffix(".partial")
    torch.save({**state, "settings": settings.to_dict() | {"output_dir": None}}, partial)  # no pickled path
    partial.replace(state_file)


def _resume(
    state_file: Path | None,
    model: BartForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    settings: PretrainSettings,
) -> list[float]:
    """Load the saved state, if it exists; returns the losses of all completed steps."""
    if not state_file or not state_file.exists():
        return []
    state = torch.load(state_file)
    if faults := differences(settings, state["settings"], str(state_file)):
        raise InputError(f"{fault}; give this value, or delete the file to start again" for fault in faults)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["losses"]


def save(model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, output_dir: Path) -> None:
    """Write config, float16 weights and tokenizer in the format of `from_pretrained`."""
    model.half().save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
