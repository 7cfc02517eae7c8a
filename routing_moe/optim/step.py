"""Optimizer steps, the same for the method, every routing and every baseline.

A step is a pure function of (parameters, optimizer state, seed, step): its examples, routes and dropout masks
depend on the seed and the step number only. So no random state has to be saved, and a resumed run is
bit-identical to one that was not stopped.

Routes are drawn once for all examples of a step, before it is split into micro-batches. Their gradient is
summed over the micro-batches and passes through the router once. With several processes, each gets some of
the micro-batches and gradients are summed: the step is the same for any number of processes.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from accelerate.utils.memory import clear_device_cache
from torch import Tensor
from torch.nn import functional as F

from dataloader.batching import answer_choices, assign_to_ranks, step_examples
from dataloader.encoded import EncodedExamples
from dataloader.progress import ProgressBar
from dataloader.task_sampling import TaskMixture
from routing_moe.config.shared import StepSettings
from routing_moe.io.memory import is_out_of_memory
from routing_moe.model.base import is_of_base
from routing_moe.optim.layers import checkpoint_layers, compile_layers
from routing_moe.optim.micro_batches import MicroBatchLimits, model_inputs, on_device
from routing_moe.optim.shared_base import SharedBase

REDUCE_ELEMENTS = 2**25  # gradients are summed over processes in buckets of this many numbers

log = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is not finite."""


# ---- schedules and optimizer


def linear_warmup_decay(step: int, warmup_steps: int, total_steps: int) -> float:
    """Returns the learning-rate factor of a step (from 0): from 0 to 1 in the warm-up, then linearly to 0."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def build_optimizer(model, settings: StepSettings, base: SharedBase | None = None) -> torch.optim.AdamW:
    """Returns AdamW with the rates of BART (or low-rank experts), what experts share, router and vectors.

    Norms, biases and a shared base of complete experts have no weight decay.
    """
    rates = {"bart": settings.learning_rate, "router": settings.router_lr, "vectors": settings.task_model_lr}
    if model.config.has_lora:
        rates["base"] = settings.base_lr
    groups = []
    for part, rate in rates.items():
        of_part = [
            p
            for name, p in model.named_parameters()
            if part == part_of(name, model.config.has_lora) and p.requires_grad
        ]
        matrices, others = [p for p in of_part if p.ndim > 1], [p for p in of_part if p.ndim <= 1]
        frozen_with = "bart" if part == "base" else part  # in alternating updates
        groups.append((matrices, rate, settings.weight_decay, frozen_with))
        groups.append((others, rate, 0.0, frozen_with))
    if base:
        groups.append((base.steps, settings.base_lr, 0.0, "bart"))
    named = [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay, "part": part}
        for parameters, rate, decay, part in groups
        if parameters
    ]
    return torch.optim.AdamW(named, eps=settings.adam_epsilon, fused=True)


def part_of(parameter_name: str, has_lora: bool = False) -> str:
    """Returns whose rate it has: "router", "vectors", "bart" (experts), "base" (of low-rank ones)."""
    if has_lora and is_of_base(parameter_name):
        return "base"
    return {"router": "router", "task_vectors": "vectors"}.get(parameter_name.split(".")[0], "bart")


def frozen_parts(step: int, alternate_every: int) -> set[str]:
    """Returns the parts that are frozen in a step (from 0) of alternating updates; BART is the first."""
    if not alternate_every:
        return set()
    return {"router", "vectors"} if ((step + 1) // alternate_every) % 2 else {"bart"}


# ---- one step


class Stepper:
    """Runs optimizer steps of a model on encoded examples."""

    def __init__(self, model, examples: EncodedExamples, settings: StepSettings, accelerator: Accelerator):
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.examples, self.mixture = examples, TaskMixture(examples.task_ids_N, settings.task_sampling)
        shares = settings.shared_base and model.config.num_experts > 1 and not model.config.has_lora
        self.base = SharedBase(model) if shares else None
        self.optimizer = build_optimizer(model, settings, self.base)
        # accelerate's wrapper is for its loss scaler, and without one it only takes time in every step.
        if accelerator.scaler is not None:
            self.optimizer = accelerator.prepare_optimizer(self.optimizer)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if settings.gradient_checkpointing:
            checkpoint_layers(model)
        if settings.compile:
            compile_layers(model)
        self.limits = MicroBatchLimits.on(model.device, settings, model.config.max_position_embeddings)
        self.routed_rows = torch.tensor(model.config.routed_rows, dtype=torch.long, device=model.device)
        vectors = model.task_vectors
        absent = np.setdiff1d(range(vectors.num_embeddings), examples.task_ids_N) if vectors else []
        self.absent_rows = torch.tensor(absent, dtype=torch.long, device=model.device)
        self.absent_vectors = vectors.weight.detach()[self.absent_rows] if vectors else None

    def run(self, last: int, first: int = 0, desc="training", quiet=True) -> Iterator[tuple[int, dict]]:
        """Yields (number of steps taken, report) after each step from `first` on, with a progress bar.

        The model then has the temperature of the next step, which an evaluation or a checkpoint has.
        """
        with ProgressBar(total=last, initial=first, desc=desc, unit="step", disable=quiet) as bar:
            for step in range(first, last):
                report = self.step(step)
                self.model.config.router_temperature = self.settings.temperature(step + 1)
                bar.set_postfix(loss=f"{report['loss'] / report['tokens']:.3f}", refresh=False)
                bar.update()
                yield step + 1, report

    def step(self, step: int) -> dict:
        """Runs one optimizer step (counted from 0).

        Returns loss (nats, summed over tokens), tokens, grad_norm, lr_factor and route_entropy (nats; 0 for
        one-hot routes, ln E for average ones).
        Raises TrainingDiverged before the parameters change.
        """
        indices, choices, groups = self.split(step)
        self.freeze_parts(step)
        if not self.model.training:  # after an evaluation
            self.model.train()
        self.model.config.router_temperature = self.settings.temperature(step)
        seed_draws(self.model.device, self.settings.seed, step)  # the same routes on every process
        routes_BLE = self.draw_routes(indices)
        leaf_BLE = routes_BLE.detach()
        if self.accelerator.num_processes > 1:  # the same draw for all: rounding could change a choice
            # NCCL accepts only contiguous tensors, and a broadcast writes into its argument.
            leaf_BLE = broadcast(leaf_BLE.clone(memory_format=torch.contiguous_format))
        leaf_BLE.requires_grad_(routes_BLE.requires_grad)
        losses_G = self._run_micro_batches(step, indices, choices, groups, leaf_BLE)
        self._regularise(leaf_BLE)
        self._collect_gradients(routes_BLE, leaf_BLE, losses_G)
        norm = self.accelerator.clip_grad_norm_(self.active, self.settings.max_grad_norm)
        entropy = torch.special.entr(leaf_BLE.detach().index_select(1, self.routed_rows)).sum(-1).mean()
        *losses, norm, entropy = torch.cat([losses_G, norm[None], entropy[None]]).tolist()  # waits for a GPU
        loss = sum(losses)
        self._check(loss, "loss", step, indices)
        if self.accelerator.scaler is None:  # with a loss scaler, an overflow only skips the step
            self._check(norm, "gradient norm", step, indices)
        factor = self._update(step)
        tokens = int(self.examples.target_lengths(indices, choices).sum())
        numbers = {"loss": loss, "tokens": tokens, "grad_norm": norm}
        return numbers | {"lr_factor": factor, "route_entropy": entropy}

    def draw_routes(self, indices: np.ndarray) -> Tensor:
        """Returns the routes (B, L, E) of a step's examples, by their tasks, or also by their inputs."""
        task_ids_B = torch.from_numpy(self.examples.task_ids_N[indices])
        if not self.model.source.reads_inputs:
            return self.model.draw_routes(task_ids_B)
        prompts = self.examples.prompts(indices, pad_token_id=self.model.config.pad_token_id)
        return self.model.draw_routes(task_ids_B, prompts["input_ids"], prompts["attention_mask"])

    def freeze_parts(self, step: int) -> None:
        """Disables gradients of the parts that are frozen in this step of alternating updates."""
        if self.settings.alternate_every:
            frozen = frozen_parts(step, self.settings.alternate_every)
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    p.requires_grad_(group["part"] not in frozen)

    @property
    def active(self) -> list[torch.nn.Parameter]:
        """The trained parameters that are not frozen in the current step."""
        of_base = self.base.steps if self.base else []
        return [p for p in (*self.parameters, *of_base) if p.requires_grad]

    def split(self, step: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Returns a step's examples, the index of each one's answer, and micro-batches (positions)."""
        settings = self.settings
        indices = step_examples(
            len(self.examples), settings.step_size, settings.seed, step, self.mixture.epoch_order
        )
        choices = answer_choices(self.examples.n_outputs_N[indices], settings.seed, step)
        most = math.ceil(len(indices) / self.accelerator.num_processes)
        return indices, choices, self.limits.groups(*self.examples.lengths(indices, choices), most)

    def own_groups(self, indices: np.ndarray, choices: np.ndarray, groups: list[np.ndarray]) -> list[int]:
        """Returns which of the micro-batches this process runs."""
        sources, targets = self.examples.lengths(indices, choices)
        costs = [len(g) * (sources[g].max() + targets[g].max()) for g in groups]
        return assign_to_ranks(costs, self.accelerator.num_processes)[self.accelerator.process_index]

    def _run_micro_batches(
        self, step: int, indices: np.ndarray, choices: np.ndarray, groups: list[np.ndarray], leaf_BLE: Tensor
    ) -> Tensor:
        """Returns `_backward`; micro-batches are halved after running out of memory, with equal draws."""
        while True:
            seed_draws(self.model.device, self.settings.seed, step, 1 + self.accelerator.process_index)
            try:
                return self._backward(indices, choices, groups, leaf_BLE)
            except (RuntimeError, MemoryError) as error:
                # Several processes would have to stop and start together.
                can_halve = self.accelerator.num_processes == 1 and len(groups) < len(indices)
                if not (can_halve and is_out_of_memory(error)):
                    raise
            # Outside of the handler, whose traceback keeps the tensors of the failed pass.
            self.optimizer.zero_grad(set_to_none=True)
            leaf_BLE.grad = None
            clear_device_cache(garbage_collection=True)
            self.limits = self.limits.below(*self.examples.lengths(indices, choices), groups)
            groups = self.split(step)[2]
            log.info(
                "out of memory: from here at most %d padded tokens a micro-batch", self.limits.max_tokens
            )

    def _backward(
        self, indices: np.ndarray, choices: np.ndarray, groups: list[np.ndarray], leaf_BLE: Tensor
    ) -> Tensor:
        """Returns the summed loss of each micro-batch (G,) after its backward pass; 0 for those of others."""
        config, device = self.model.config, self.model.device
        own = self.own_groups(indices, choices, groups)
        batches = [
            model_inputs(self.examples, indices[groups[g]], choices[groups[g]], config, self.limits)
            | {"rows": torch.from_numpy(groups[g])}
            for g in own
        ]
        batches = on_device(batches, device)
        # The CPU reads the routes of all micro-batches here, and the next value of a GPU before the update.
        known_BLE = leaf_BLE.detach().cpu()
        task_ids_B = torch.from_numpy(self.examples.task_ids_N[indices])
        losses_G = torch.zeros(len(groups), dtype=self.model.routing_dtype, device=device)
        for g, batch in zip(own, batches, strict=True):
            layers = torch.compiler.set_stance("default") if self.settings.compile else nullcontext()
            with layers, self.accelerator.autocast():
                loss = self.model(
                    routes=leaf_BLE[batch.pop("rows")],
                    routes_on_cpu=known_BLE[groups[g]],
                    # If routes are drawn per task, the examples of a task share a route and its gradient.
                    route_groups=task_ids_B[groups[g]] if self.model.source.per_task else None,
                    constant_zeros=config.router_mode == "top_k",
                    **batch,
                ).loss
            self.accelerator.backward(loss)
            losses_G[g] = loss.detach()
        return losses_G

    def _regularise(self, leaf_BLE: Tensor) -> None:
        """Adds the gradients of expert regularisation and of load balance, once over all processes.

        The published code regularises each of its batches; the load balance is in units of an example's loss.
        """
        if self.settings.load_balance > 0 and leaf_BLE.requires_grad and self.accelerator.is_main_process:
            imbalance = load_imbalance(leaf_BLE.index_select(1, self.routed_rows))
            self.accelerator.backward(self.settings.load_balance * len(leaf_BLE) * imbalance)
        if self.settings.expert_regularization > 0 and self.accelerator.is_main_process:
            weight = self.settings.expert_regularization * self.settings.gradient_accumulation_steps
            distance = self.model.expert_distance()
            if distance.requires_grad:  # not if BART is frozen in this step
                self.accelerator.backward(weight * distance)

    def _collect_gradients(self, routes_BLE: Tensor, leaf_BLE: Tensor, losses_G: Tensor) -> None:
        """Sums gradients and losses over processes and passes the routes' gradient through the router.

        An expert that no example selected gets zeros, so that the optimizer updates it as if every expert had
        run.
        """
        trained = [p for p in self.parameters if p.requires_grad]
        trained += [leaf_BLE] if leaf_BLE.requires_grad else []
        for p in trained:  # a process without micro-batches has no gradients
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if (scaler := self.accelerator.scaler) is not None:  # the scaler is initialised by its first loss
            scaler.scale(torch.zeros((), device=leaf_BLE.device))
        if self.accelerator.num_processes > 1:
            sum_over_processes([*(p.grad for p in trained), losses_G], self.accelerator)
        if self.base:
            self.base.collect_gradients()
        if leaf_BLE.requires_grad:
            routes_BLE.backward(leaf_BLE.grad)

    def load_optimizer(self, state: dict) -> None:
        """Restores the optimizer's state."""
        # Learning rates and decay come from the settings, only the accumulated state from the file.
        groups = self.optimizer.state_dict()["param_groups"]
        if [group["params"] for group in state["param_groups"]] != [group["params"] for group in groups]:
            raise ValueError("the optimizer has different groups of parameters")
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
        for parameter, averages in self.optimizer.state.items():
            if not averages["exp_avg"].shape == averages["exp_avg_sq"].shape == parameter.shape:
                raise ValueError("the optimizer's averages have different shapes than the weights")

    def _update(self, step: int) -> float:
        """Steps the optimizer with this step's learning rates; returns their factor."""
        factor = linear_warmup_decay(step, self.settings.warmup_steps, self.settings.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self.optimizer.step()  # frozen parts have no gradient, so they have no decay or momentum either
        if len(self.absent_rows):  # vectors of tasks without examples, which weight decay would shrink
            self.model.task_vectors.weight.data[self.absent_rows] = self.absent_vectors
        if self.base:
            self.base.apply()
        self.optimizer.zero_grad(set_to_none=True)
        return factor

    def _check(self, value: float, what: str, step: int, indices: np.ndarray) -> None:
        if math.isfinite(value):
            return
        self.optimizer.zero_grad(set_to_none=True)
        names = self.model.config.task_names
        tasks = sorted({names[i] for i in self.examples.task_ids_N[indices]})
        raise TrainingDiverged(
            f"the {what} is {value} at step {step + 1}; tasks in the batch: {', '.join(tasks)}"
        )


def seed_draws(device: torch.device, *numbers: int) -> None:
    """Seeds the draws of routes and dropout masks on this device by all the numbers (seed, step, ...)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    # torch.manual_seed also notes where it was called, for each kind of accelerator that is not in use. In
    # small models that is a tenth of a step.
    generator = torch.default_generator if device.type == "cpu" else torch
    generator.manual_seed(seed)


def sum_over_processes(tensors: list[Tensor], accelerator: Accelerator) -> None:
    """Sums tensors over all processes in place, in buckets of REDUCE_ELEMENTS.

    Once per step, instead of DistributedDataParallel: which experts have gradients depends on the tasks of a
    step, and here a parameter without a gradient on some process needs no special case.
    """
    bucket: list[Tensor] = []
    for i, tensor in enumerate(tensors):
        bucket.append(tensor)
        if i + 1 == len(tensors) or sum(t.numel() for t in bucket) >= REDUCE_ELEMENTS:
            flat = accelerator.reduce(torch.cat([t.flatten() for t in bucket]), reduction="sum")
            for t, summed in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.copy_(summed.view_as(t))
            bucket = []


def load_imbalance(routes_BLE: Tensor) -> Tensor:
    """Returns the sum over layers of E * sum_e f_e * P_e: L at equal loads, L * E if all choose one expert.

    f_e is the share of the examples whose largest weight is that of expert e, P_e the mean weight of e, which
    alone has a gradient. Switch Transformers (Fedus, Zoph, Shazeer 2022, arXiv 2101.03961), equations 4 to 6.
    """
    E = routes_BLE.shape[-1]
    share_LE = F.one_hot(routes_BLE.argmax(dim=-1), E).to(routes_BLE.dtype).mean(dim=0)
    return E * (share_LE * routes_BLE.mean(dim=0)).sum()
