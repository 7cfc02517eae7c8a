"""Methods that compute task vectors. Each loads its model once, and then computes one vector at a time."""

import zlib
from dataclasses import replace

import numpy as np
import torch

from dataloader.encoded import EncodedExamples
from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError, in_brief, problem_context
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.shared import step_settings_of, text_problems
from routing_moe.evaluation.text_vectors import BARE, encoder_states, text_vectors
from routing_moe.finetuning.starting_model import plain_of
from routing_moe.finetuning.trial import Weights
from routing_moe.io.accelerator import command_device, make_accelerator
from routing_moe.io.precision import precision_problems
from routing_moe.model.loading import check_not_quantized
from routing_moe.optim.step import Stepper


class RandomVectors:
    def __init__(self, settings):
        self.settings = settings

    def vector_of(self, task: str, samples: str) -> np.ndarray:
        rng = np.random.default_rng([self.settings.seed, zlib.crc32(task.encode())])
        return rng.normal(0.0, self.settings.sigma, self.settings.taskvecs_dim)


class Descriptions:
    def __init__(self, settings):
        self.sentences, folder = settings.sentences, settings.encoder_folder()
        # In float32 even if the file is in half precision.
        fields = dict(device=str(command_device()), model_kwargs={"dtype": torch.float32})
        try:
            from sentence_transformers import SentenceTransformer  # takes seconds

            self.encoder = SentenceTransformer(str(folder), **fields)
        except Exception as error:  # errors of several libraries and file formats, and a missing package
            reason = f"no sentence encoder can be loaded ({in_brief(error)})"
            raise InputError(f"--encoder {settings.encoder}: {reason}") from None

    def vector_of(self, task: str, samples: str) -> np.ndarray:
        # One sentence at a time: padding in a batch would change the last bits.
        encode = self.encoder.encode
        return np.mean([encode(text, show_progress_bar=False) for text in self.sentences[task]], axis=0)


class BartMethod:
    """A model (plain, or a mixture) and its tokenizer, on the device of the process."""

    def __init__(self, settings):
        self.settings, saved = settings, settings.found_model()
        with problem_context("--model "):
            config = saved.config
            self.tokenizer = load_tokenizer(saved.place, config.vocab_size)
        if config.num_experts > 1 and not settings.takes_mixtures:
            mixture = f"--model {settings.model} is a mixture of {config.num_experts} experts"
            raise InputError(
                f"{mixture}; {settings.method} vectors need a plain model or a run with one expert"
            )
        lengths = ("max_input_length", "max_output_length")[: 1 + settings.reads_answers]
        if problems := text_problems(settings, config, settings.model, lengths):
            raise InputError(problems)
        if getattr(settings, "pooling", None) == "bos":
            if not config.is_encoder_decoder:
                raise InputError("--pooling bos: a decoder-only model has read nothing else there; give mean")
            if self.tokenizer("")["input_ids"][:1] != [self.tokenizer.bos_token_id]:
                raise InputError(f"--pooling bos: {settings.model} has no token <s> before texts; give mean")
        model = saved.load()
        if settings.reads_answers:  # gradients need float32, also if the base of experts was in bfloat16
            check_not_quantized(model.config, f"{settings.method} vectors need those of a model in full")
            model = model.float()
        self.model = model.to(command_device()).eval()

    def encoded(self, task: str, samples: str) -> EncodedExamples:
        """Returns the encoded examples of a task. By default, inputs start with neither a name nor [task]."""
        text_format = TextFormat.of(self.settings, self.model.config)
        examples = self.settings.examples(task, samples)
        if not (self.settings.task_names or text_format.hide_task_names):
            text_format = replace(text_format, **BARE)
            examples = [replace(each, input=each.whole_text, before=()) for each in examples]
        return encode(examples, self.tokenizer, text_format, {task: 0})

    def pooled_states(self, task: str, samples: str) -> np.ndarray:
        """Returns the text vector (D,) of a task."""
        inputs = [example.whole_text for example in self.settings.examples(task, samples)]
        states_of, text_format = encoder_states(self.model), TextFormat.of(self.settings, self.model.config)
        how = dict(quiet=True, pooling=self.settings.pooling, task_names=self.settings.task_names)
        most = self.settings.max_tokens_per_micro_batch
        return text_vectors(states_of, self.tokenizer, {task: inputs}, text_format, most, **how)[0]


class Text(BartMethod):
    vector_of = BartMethod.pooled_states


class TrainingMethod(BartMethod):
    """Fine-tunes the model on one task at a time, each time from the same initial weights."""

    def __init__(self, settings):
        if problems := precision_problems(settings):
            raise InputError(problems)
        super().__init__(settings)
        if self.model.config.has_lora and getattr(settings, "weights", None) != "updates":
            self.model = plain_of(self.model).to(self.model.device).eval()

    def train_on(self, task: str, examples: EncodedExamples) -> None:
        """Fine-tunes from the weights before the first call; every step is a function of the seed."""
        if not hasattr(self, "initial"):
            self.initial = Weights(self.model)
        self.initial.put_back()
        self.model.zero_grad(set_to_none=True)  # gradients of a task that failed
        self.model.config.task_names = [task]  # for error messages
        steps = self.settings.total_steps
        step_settings = step_settings_of(self.settings, warmup_steps=int(steps * self.settings.warmup_ratio))
        # A new accelerator per task, because it keeps its loss scaler and its optimizers.
        accelerator = make_accelerator(self.settings.mixed_precision)
        stepper = Stepper(self.model, examples, step_settings, accelerator)
        for _ in stepper.run(steps):
            pass
        self.model.eval()


class FinetunedText(TrainingMethod):
    def vector_of(self, task: str, samples: str) -> np.ndarray:
        self.train_on(task, self.encoded(task, samples))
        return self.pooled_states(task, samples)
