"""A training run: steps, evaluations, checkpoints, resuming. All loop state is in one dict."""

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.atomic_files import flush, write_bytes, write_text
from dataloader.encoded import EncodedExamples
from dataloader.errors import InputError, in_brief, in_short
from dataloader.ontology import Ontology
from routing_moe.checkpoints.folder import load_training_state, save_checkpoint
from routing_moe.config.measures import MEASURES, PERFORMANCE, goodness, words_of
from routing_moe.config.shared import last_step
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.batches import routes_of_examples
from routing_moe.evaluation.scored_files import TaskFile, decoding_of
from routing_moe.evaluation.scoring import dev_scores
from routing_moe.io.files import npy_bytes
from routing_moe.io.main_process import on_main
from routing_moe.io.memory import peak_memory_gb
from routing_moe.io.run_folder import CURVES_FILE
from routing_moe.io.trackers import log_curves
from routing_moe.model.given_routes import layer_names
from routing_moe.optim.step import Stepper
from routing_moe.results.scores import mean_score
from routing_moe.training.cost import described_cost, write_cost

LOG_EVERY = 10  # steps between rows of the curves

log = logging.getLogger(__name__)


class Training:
    """Trains `model` in `settings.output_dir`. Call `load_state` first to resume from a checkpoint.

    draw_routes: draws a route map, of (path, title, routes_NLE, tasks, layers, ontology).
    scoring_flops: what it has cost to choose the train rows.
    """

    def __init__(
        self,
        model,
        tokenizer,
        train_examples: EncodedExamples,
        dev_files: list[TaskFile],
        ontology: Ontology,
        settings: TrainSettings,
        accelerator: Accelerator,
        draw_routes: Callable,
    ):
        self.model, self.tokenizer, self.dev_files, self.ontology = model, tokenizer, dev_files, ontology
        self.settings, self.accelerator = settings, accelerator
        self.draw_routes, self.scoring_flops = draw_routes, 0
        self.stepper = Stepper(model, train_examples, settings.step_settings, accelerator)
        self._selects_at_final = model.config.has_router and settings.selects_at_final_temperature
        self.folder = Path(settings.output_dir)
        # best_score: the highest `goodness` by --select_by
        # since_eval: loss (nats) and target tokens since the last evaluation
        # max_tokens: limit of micro-batches by the flags, and now, which is less after running out of memory
        self.state = {
            "step": 0,
            "best_score": -math.inf,
            "history": [],
            "since_eval": [0.0, 0],
            "data": train_examples.fingerprint(),
            "dev_data": [file.encoded.fingerprint() for file in dev_files],
            "metrics": {file.sample: f"metric {file.metric}" for file in dev_files},
            "max_tokens": [self.stepper.limits.max_tokens] * 2,
        }
        self.total_steps = last_step(settings, len(train_examples), settings.step_size)
        self.stop_requested = False

    def set_total_steps(self, steps: int) -> None:
        self.settings = dataclasses.replace(self.settings, total_steps=steps)
        self.stepper.settings = self.settings.step_settings
        self.total_steps = last_step(self.settings, len(self.stepper.examples), self.settings.step_size)

    # ---- the loop

    def run(self) -> None:
        """Trains to the end, with evaluations every `--eval_period` steps and after the last step."""
        self._announce()
        started, first = time.perf_counter(), self.state["step"]
        spent_evaluating = 0.0
        quiet = not self.accelerator.is_local_main_process
        with finishing_step_on_interrupt(self):
            for step, report in self.stepper.run(self.total_steps, first, quiet=quiet):
                self._note(step, report)
                began = time.perf_counter()
                self._evaluate_and_save()
                spent_evaluating += time.perf_counter() - began
                if self.stop_requested:
                    self._save_last()
                    raise SystemExit(f"stopped after step {step}; --resume continues from there")
        self._summarise(time.perf_counter() - started - spent_evaluating, self.state["step"] - first)

    def _note(self, step: int, report: dict) -> None:
        self.state["step"] = step
        self.state["max_tokens"][1] = self.stepper.limits.max_tokens
        self.state["since_eval"][0] += report["loss"]
        self.state["since_eval"][1] += report["tokens"]
        if step % LOG_EVERY == 0 or step == self.total_steps:
            has_router = self.model.config.has_router  # without one there is no temperature
            curves = {
                "train_loss": report["loss"] / report["tokens"],
                "learning_rate": self.settings.learning_rate * report["lr_factor"],
                **({"temperature": self.model.config.router_temperature} if has_router else {}),
                "grad_norm": report["grad_norm"],
                "route_entropy": report["route_entropy"],
            }
            log_curves(self.folder, self.accelerator, curves, step)

    def _evaluate_and_save(self) -> None:
        settings, step = self.settings, self.state["step"]
        is_last = step == self.total_steps
        evaluates = step % settings.eval_period == 0 and step >= settings.no_eval_until
        if evaluates or is_last:
            self.evaluate()
        if step % settings.save_period == 0:
            self._keep_checkpoint()
        if evaluates or is_last or step % (settings.checkpoint_period or settings.eval_period) == 0:
            self._save_last()

    # ---- evaluation

    def evaluate(self) -> None:
        """Writes dev scores, loss and routes into `<step>-steps/`; the best of --select_by saves `best/`."""
        step, by = self.state["step"], self.settings.select_by
        scores, dev_loss = dev_scores(
            self.model, self.tokenizer, self.dev_files, decoding_of(self.settings), self.accelerator, by
        )
        means = {name: mean_score(scores, name) for name in MEASURES if name in scores}
        loss, tokens = self.state["since_eval"]
        known = {PERFORMANCE: math.nan} | means
        self.state["history"].append([step, loss / max(tokens, 1), dev_loss, *known.values()])
        self.state["since_eval"] = [0.0, 0]
        temperature = self.stepper.settings.temperature
        may_be_best = not self._selects_at_final or temperature(step) == temperature(self.total_steps)
        good = goodness(means[by], by)
        if math.isnan(good):
            raise InputError(f"--select_by {by}: no dev file has a value of it after step {step}")
        is_best = may_be_best and good > self.state["best_score"]
        if is_best:
            self.state["best_score"] = good
        if self.accelerator.is_main_process:
            folder = self._write_routes()
            write_text(folder / "dev_results.csv", scores.to_csv())
            if is_best:
                progress = self._progress(means.get(PERFORMANCE))
                save_checkpoint(self.model, self.tokenizer, self.folder / "best", progress=progress)
            columns = ["steps", "train_loss", "dev_loss", *(f"dev_{name}" for name in known)]
            history = pd.DataFrame(self.state["history"], columns=columns)
            write_text(self.folder / "losses.csv", history.to_csv())
        train_loss = self.state["history"][-1][1]
        described = ", ".join(f"{words_of(name)} {value:.4f}" for name, value in means.items())
        log.info(
            "step %d: train loss %.4f, dev loss %.4f, mean dev %s%s", step, train_loss, dev_loss, described,
            " (best so far, saved)" if is_best else "" if may_be_best else " (not the last routes)",
        )  # fmt: skip
        self.accelerator.wait_for_everyone()

    def _progress(self, dev_performance: float | None = None) -> dict:
        """Returns step, temperature (with a router), dev score (if known) and distance of the experts."""
        progress = {"step": self.state["step"]}
        if self.model.config.has_router:
            progress["temperature"] = self.model.config.router_temperature
        if dev_performance is not None:
            progress["dev_performance"] = dev_performance
        if (distance := self.model.relative_expert_distance()) is not None:
            progress["expert_distance"] = distance
        return progress

    @torch.no_grad()
    def _write_routes(self) -> Path:
        """Writes routes of the train tasks, at the temperature and at 1, as arrays and as heat maps."""
        folder = self.folder / f"{self.state['step']}-steps"
        folder.mkdir(exist_ok=True)
        tasks = self.ontology.order({file.task for file in self.dev_files})
        write_text(folder / "route_tasks.txt", "".join(f"{task}\n" for task in tasks))
        config = self.model.config
        temperatures = {"route": config.router_temperature, "route_t1": 1.0}
        if not config.has_router:
            temperatures = {"route": None}
        for name, tau in temperatures.items():
            routes_NLE = self._routes_of(tasks, tau).float().cpu().numpy()
            write_bytes(folder / f"{name}.npy", npy_bytes(routes_NLE))
            layers = layer_names(config.depths[0], range(config.num_layers), config.lora_splits)
            title = f"Routes at step {self.state['step']}" + (f", temperature {tau:.3g}" if tau else "")
            self.draw_routes(folder / f"{name}.png", title, routes_NLE, tasks, layers, self.ontology)
        return folder

    def _routes_of(self, tasks: list[str], temperature: float | None) -> Tensor:
        """Returns the expected routes (N, L, E) of tasks; means over dev examples where each has its own."""
        if not self.model.source.reads_inputs:
            return self.model.source.expected(self.model, tasks, temperature)
        files = {task: [file for file in self.dev_files if file.task == task] for task in tasks}
        examples = [EncodedExamples.joined([file.encoded for file in own]) for own in files.values()]
        return torch.stack([routes_of_examples(self.model, own).mean(dim=0) for own in examples])

    # ---- checkpoints

    def _save_last(self) -> None:
        if self.accelerator.is_main_process:
            state = self.state | {"optimizer": self.stepper.optimizer.state_dict()}
            if self.accelerator.scaler is not None:
                state["scaler"] = self.accelerator.scaler.state_dict()
            flush(self.folder / CURVES_FILE)  # a resumed run writes only the rows after this step again
            save_checkpoint(self.model, self.tokenizer, self.folder / "last", state, self._progress())
        self.accelerator.wait_for_everyone()

    def _keep_checkpoint(self) -> None:
        """Writes a permanent checkpoint into the step's folder, with its dev results if there are any."""
        if self.accelerator.is_main_process:
            place = self.folder / f"{self.state['step']}-steps"
            results = {path.name: path.read_bytes() for path in place.glob("*") if path.is_file()}
            save_checkpoint(self.model, self.tokenizer, place, progress=self._progress(), keep=results)
        self.accelerator.wait_for_everyone()

    def load_state(self, checkpoint: Path) -> None:
        """Restores the state of the optimizer and the loop from `checkpoint`, whose weights the model has."""
        state = load_training_state(checkpoint)
        was, now = state.get("metrics", {}), self.state["metrics"]
        other = [f"{name}: {was.get(name)}, now {now[name]}" for name in now if was.get(name) != now[name]]
        metrics = f"metrics of dev files ({in_short(other)})"
        for key, what in {"data": "train files", "dev_data": "dev files", "metrics": metrics}.items():
            if state.get(key) != self.state[key]:
                raise InputError(
                    f"--train_dir {self.settings.train_dir}: the {what} are not those of the run in "
                    f"{self.folder}; restore the old files, or name another --output_dir"
                )
        try:
            self.stepper.load_optimizer(state.pop("optimizer"))
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            if state["max_tokens"][0] != self.state["max_tokens"][0]:  # another flag or device
                state["max_tokens"] = self.state["max_tokens"]
            limits = dataclasses.replace(self.stepper.limits, max_tokens=state["max_tokens"][1])
            self.stepper.limits = limits
            self.state = {name: state[name] for name in self.state}
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise InputError(
                f"{checkpoint}: its training state is not that of this run ({in_brief(error)}); "
                f"to start again, delete {checkpoint}"
            ) from None

    # ---- the log

    def _announce(self) -> None:
        settings, model = self.settings, self.model
        log.info("model: %s, %d expert(s) per layer", settings.start.described, model.config.num_experts)
        log.info(
            "%d train examples of %d tasks in %s; %d steps of %d examples; %d process(es) on %s",
            len(self.stepper.examples), len({file.task for file in self.dev_files}), settings.train_dir,
            self.total_steps, settings.step_size, self.accelerator.num_processes, self.accelerator.device,
        )  # fmt: skip
        trained, precision = model.num_parameters(only_trainable=True), self.accelerator.mixed_precision
        log.debug("%d warm-up steps; %d trained parameters; %s", settings.warmup_steps, trained, precision)
        log.info("routes: %s", described_routes(model, settings))
        for line in (self.stepper.mixture.described(model.config.task_names), self.stepper.limits):
            log.debug(line)
        if model.config.has_router:
            log.info(described_temperature(self.stepper, self.total_steps))
        if self.state["step"]:
            log.info("resuming after step %d", self.state["step"])

    def _summarise(self, seconds: float, steps: int) -> None:
        what = self.stepper, self.total_steps, self.settings, self.scoring_flops
        log.debug(described_cost(on_main(self.accelerator, lambda: write_cost(*what))))
        if steps:
            by, per_step = self.settings.select_by, seconds / steps
            log.debug("%.3f s per step; peak memory %.2f GB", per_step, peak_memory_gb())
            best = goodness(self.state["best_score"], by)
            log.info("trained %d steps in %.1f s; best mean dev %s %.4f", steps, seconds, words_of(by), best)
        else:
            log.info("the run was complete already, after step %d", self.state["step"])
        if self.model.config.num_experts > 1:
            log.info("picture of the routes: %s", self.folder / f"{self.state['step']}-steps" / "route.png")


@contextmanager
def finishing_step_on_interrupt(training: Training) -> Iterator[None]:
    """In the block, Ctrl-C or SIGTERM ends training after the current step is saved; a second one at once.

    With several processes it changes nothing: they would not all stop after the same step.
    """
    with ExitStack() as changed:

        def request_stop(number, frame) -> None:
            training.stop_requested = True
            changed.close()  # sets the handlers of before
            log.info("stopping after this step and its evaluation, if due; interrupt again to stop at once")

        if training.accelerator.num_processes == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                changed.callback(signal.signal, number, signal.signal(number, request_stop))
        yield


def check_epochs(settings: TrainSettings, n_examples: int) -> None:
    """Raises InputError if --num_train_epochs ends a run while the learning rate still rises."""
    step = last_step(settings, n_examples, settings.step_size)
    if step < settings.total_steps and step <= settings.warmup_steps:
        raise InputError(
            f"--num_train_epochs {settings.num_train_epochs:g} ends the run of {n_examples} examples at step "
            f"{step}, but the learning rate rises until step {settings.warmup_steps} of --total_steps "
            f"{settings.total_steps}; leave the flag out, or give --total_steps {step}"
        )


def described_routes(model, settings: TrainSettings) -> str:
    """Returns the source of the routes and what they mix, in words."""
    config = model.config
    if config.num_experts == 1:
        return "none" if config.has_lora else "none; one expert is a plain model"
    # A table router has no parameters but the task vectors.
    router = model.task_vectors if config.has_table else model.router
    is_trained = router is None or any(p.requires_grad for p in router.parameters())
    learned = "learned" if is_trained else "frozen"
    drawn = "random for each task, drawn once"
    source = {
        "learned": f"{learned} ({config.router_nn_type}), {config.router_mode}",
        "inputs": f"{learned} for each example, by the mean embedding of its input",
        "average": "average",
        "random": f"random for each example; scores are means of {settings.random_eval_draws} draws",
        "fixed": f"given ({config.given_routes})" if config.given_routes else drawn,
    }.get(config.route_source, config.route_source)
    mixing = config.lora_mixing if config.has_lora else config.expert_mixing
    return f"{source}; {config.experts_described} a layer, mixing {mixing}"


def described_temperature(stepper: Stepper, total_steps: int) -> str:
    """Returns the temperature along training, in words; also when it reaches its minimum, if not in time."""
    settings, quarters = stepper.settings, (0, 25, 50, 75, 100)
    taus = [settings.temperature(percent * total_steps // 100) for percent in quarters]
    points = [f"{percent}% {tau:.4g}" for percent, tau in zip(quarters, taus, strict=True)]
    text = f"temperature: {', '.join(points)}"
    if taus[-1] > settings.minimum_tau and settings.anneal_rate > 0:
        steps = math.ceil(math.log(settings.initial_tau / settings.minimum_tau) / settings.anneal_rate)
        text += f"; --anneal_rate {settings.anneal_rate:g} reaches --minimum_tau after {steps} steps"
    return text
