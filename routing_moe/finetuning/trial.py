"""Runs configurations one after the other on a model that is loaded once: train, keep the best weights, test.

The result of a configuration is a function of its settings: weights are restored to the start, and every step
and score follows from the seed. It depends neither on the process that runs it nor on what ran before.
"""

import time

import torch

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.config.finetune import Configuration, FinetuneSettings
from routing_moe.config.measures import goodness
from routing_moe.config.plugins import load_plugin
from routing_moe.config.shared import last_step
from routing_moe.evaluation.predictions import prediction_lines
from routing_moe.evaluation.scored_files import TaskFile, decoding_of, load_task_files
from routing_moe.evaluation.scoring import predict
from routing_moe.finetuning.starting_model import StartingModels
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.memory import peak_memory_gb
from routing_moe.model.conversion import with_shared_parameters
from routing_moe.model.mixtures import OF_THIS_PROJECT
from routing_moe.optim.step import Stepper, TrainingDiverged
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.training.cost import training_cost

COST_STEPS = 50  # steps from which the FLOPs per example of a configuration are computed

_runners: dict = {}  # {settings: TrialRunner}, at most one: that of the model loaded in this process


def run_configuration(settings: FinetuneSettings, configuration: Configuration) -> dict:
    """Runs one configuration with the `TrialRunner` of this process, which is loaded on the first call."""
    key = repr(settings)
    if key not in _runners:
        _runners.clear()
        _runners[key] = TrialRunner(settings)
    began = time.perf_counter()
    outcome = _runners[key].run(configuration)
    if settings.save_best and outcome["dev_performance"] is not None:
        _runners[key].save(settings.model_folder(configuration.name))
    return outcome | {"seconds": time.perf_counter() - began, "peak_memory_gb": peak_memory_gb()}


class Weights:
    """A copy of a model's trainable weights on the CPU."""

    def __init__(self, model):
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.copies = [p.detach().to("cpu", copy=True) for p in self.trained]

    @torch.no_grad()
    def take(self) -> None:
        """Copies the current weights."""
        for p, copied in zip(self.trained, self.copies, strict=True):
            copied.copy_(p)

    @torch.no_grad()
    def put_back(self) -> None:
        for p, copied in zip(self.trained, self.copies, strict=True):
            p.copy_(copied)


class TrialRunner:
    """Runs configurations of a task's grid, with the initial model and the tokenized files in memory."""

    def __init__(self, settings: FinetuneSettings):
        self.settings = settings
        load_plugin(settings.plugin)  # in a process of its own
        self.starts = StartingModels(settings, make_accelerator(settings.mixed_precision).device)
        self.gym = Gym(settings.gym_dir, settings.skip_malformed)
        self._files: dict[tuple[str, str], TaskFile] = {}
        self._model = None

    def file(self, sample: str, part: str) -> TaskFile:
        """Returns a sample's train, dev or test file, tokenized at the first call."""
        settings = self.settings
        if (sample, part) not in self._files:
            most = (settings.predict_max_examples if part == "test" else None, settings.examples_per_file)
            (self._files[sample, part],) = load_task_files(
                self.gym,
                [settings.task],
                part,
                sample,
                self.starts.tokenizer,
                TextFormat.of(settings, self.starts.config),
                {settings.task: self.starts.tasks.index(settings.task)},
                limit=min(filter(None, most), default=None),
                with_options=settings.reads_options and part != "train",
            )
        return self._files[sample, part]

    def run(self, configuration: Configuration) -> dict:
        """Returns the results of a configuration: scores, step of the best dev score, curve, predictions."""
        sample, unknown = configuration.prefix, dict.fromkeys(self.settings.measures)
        model, route, seen = self.starts.model_for(sample, lambda: self.file(sample, "train").encoded)
        if model is not self._model:
            self._model, self._at_start, self.best_weights = model, Weights(model), Weights(model)
        self._at_start.put_back()
        model.zero_grad(set_to_none=True)  # left by a failed configuration
        trial = Trial(self, configuration, model)
        try:
            trial.train() if self.settings.do_train else trial.evaluate(0)
        except TrainingDiverged as error:  # also where nothing is trained
            trial.diverged = str(error)
        test, lines = unknown, {}
        if trial.best is not None:
            self.best_weights.put_back()
            if self.settings.do_predict:
                test, lines["test"] = trial.score(self.file(sample, "test"))
        return {
            "prefix": sample,
            "lr": configuration.lr,
            "bsz": configuration.bsz,
            **{f"dev_{name}": value for name, value in (trial.best or unknown).items()},
            **{f"test_{name}": value for name, value in test.items()},
            "best_step": trial.best_step,
            "route": route,
            "vector_seen": seen,
            "diverged": trial.diverged,
            **trial.cost,
            "curve": trial.curve,
            "predictions": lines,
        }

    def save(self, folder) -> None:
        """Writes the model with the best weights of the last configuration."""
        model, config = self._model, self._model.config
        if model.config.num_experts == 1:
            model = model.to_plain()
            model.config.update({name: getattr(config, name) for name in OF_THIS_PROJECT})
        elif self.settings.route_training == "logits":
            routes_1LE = model.routes_for([self.settings.task]).detach()
            model = with_shared_parameters(model)
            model.use_routes("fixed", routes_1LE)
            model.config.given_routes = "--route_training logits"
        save_checkpoint(model, self.starts.tokenizer, folder)


class Trial:
    """The training of one configuration. best: {measure: value} of the best evaluation so far.

    curve: a row per evaluation: step, train loss since the last one, then the dev scores of `--measures`.
    cost: TRAINING_COST of the steps taken.
    """

    def __init__(self, runner: TrialRunner, configuration: Configuration, model):
        self.runner, self.settings = runner, runner.settings
        self.configuration, self.model = configuration, model
        # A new one each time: its loss scaler and its list of optimizers must not outlive a configuration.
        self.accelerator = make_accelerator(self.settings.mixed_precision)
        self.best: dict[str, float | None] | None = None
        self.best_step, self.diverged, self.curve, self.steps_done = None, None, [], 0
        self.cost = dict.fromkeys(TRAINING_COST) | {"steps": 0}

    def train(self) -> None:
        """Trains until the last step, --wait_step evaluations without a better score, or divergence."""
        settings, configuration = self.settings, self.configuration
        examples = self.runner.file(configuration.prefix, "train").encoded
        step_settings = settings.step_settings(configuration, self.model.config.router_temperature)
        stepper = Stepper(self.model, examples, step_settings, self.accelerator)
        try:
            self._take_steps(stepper, last_step(settings, len(examples), step_settings.step_size))
        finally:
            if self.steps_done:
                cost = training_cost(stepper, self.steps_done, most=COST_STEPS)
                self.cost = {name: cost[name] for name in TRAINING_COST}

    def _take_steps(self, stepper: Stepper, total_steps: int) -> None:
        settings, loss, tokens, name = self.settings, 0.0, 0, str(self.configuration)
        for self.steps_done, report in stepper.run(total_steps, desc=name, quiet=settings.quiet):
            loss, tokens = loss + report["loss"], tokens + report["tokens"]
            if self.steps_done % settings.eval_period == 0 or self.steps_done == total_steps:
                self.evaluate(self.steps_done, loss / tokens)
                loss, tokens = 0.0, 0
                if sum(step > self.best_step for step, *_ in self.curve) >= settings.wait_step:
                    return

    def evaluate(self, step: int, train_loss: float | None = None) -> None:
        """Scores the dev file; keeps the weights if they are the best so far."""
        scores, _ = self.score(self.runner.file(self.configuration.prefix, "dev"))
        self.curve.append([step, train_loss, *scores.values()])
        by = self.settings.select_by
        if scores[by] is None:  # was NaN
            raise TrainingDiverged(f"the dev {by} after step {step} is not a number")
        if self.best is None or goodness(scores[by], by) > goodness(self.best[by], by):
            self.best, self.best_step = scores, step
            self.runner.best_weights.take()

    def score(self, file: TaskFile) -> tuple[dict[str, float | None], str]:
        """Returns ({measure: the file's value}, the lines of its predictions file)."""
        tokenizer, decoding = self.runner.starts.tokenizer, decoding_of(self.settings)
        scores, (draws,), (options,) = predict(self.model, tokenizer, [file], decoding, self.accelerator)
        row = scores[list(self.settings.measures)].astype(object).where(scores.notna(), None).iloc[0]
        return row.to_dict(), prediction_lines(file, draws, options)
