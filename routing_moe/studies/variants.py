"""The routings and baselines that studies compare."""

from dataclasses import dataclass

TWO_STAGES, REFINED_ROUTING = "routing_moe.studies.two_stages", "routing_moe.studies.refined_routing"
UNREFINED = dict(refine_steps=0, unseen="nearest_cluster")  # clusters of gradients alone


@dataclass(frozen=True)
class Variant:
    """How a variant is trained and fine-tuned.

    flags: of its training, with {clusters}. experts: whether it has several, which start with noise. module: of a variant
    of several stages. vectors: the kind of task vectors that it reads. router: whether it has one.
    start: which row of `finetuning.STARTS` few-shot fine-tuning starts from. steps, answers: kinds of routes of its steps
    and of its answers, for the estimate of hours; draws: of all routes in an evaluation.
    """

    flags: str = ""
    experts: bool = True
    module: str | None = None
    vectors: str | None = None
    router: bool = False
    start: str = "moe"
    steps: str = "random"
    answers: str = "plain"
    draws: int = 1


def learned(flags: str = "", steps: str = "straight_through", answers: str = "plain", **fields) -> Variant:
    return Variant(flags, router=True, steps=steps, answers=answers, **fields)


LORA = "--expert_kind lora"  # its routes of all kinds cost about a plain BART
POLY_ROUTES = (
    "--lora_mixing factors --router_nn_type table --router_mode bernoulli "
    "--initial_tau 1 --minimum_tau 1 --anneal_rate 0"
)
POLY = f"{LORA} {POLY_ROUTES}"
PLAIN = dict(steps="plain", answers="plain")
DENSE = dict(steps="dense", answers="dense")
VARIANTS = {
    "multitask": Variant("--num_experts 1", experts=False, start="bart", steps="plain"),
    "multitask_no_names": Variant(
        "--num_experts 1 --hide_task_names", experts=False, start="bart", steps="plain"
    ),
    "average": Variant("--avg_routing", start="moe_avg", **DENSE),
    "random": Variant("--random_routing", start="moe_random", answers="dense", draws=5),
    "task_random": Variant("--task_level_random_routing", start="moe_random2"),
    "softmax": learned("--router_mode softmax", **DENSE),
    "gumbel": learned("--router_mode gumbel_softmax", **DENSE),
    "straight_through": learned(),
    "top_k": learned("--router_mode top_k --router_top_k 2", **DENSE),
    "merged_parameters": learned("--router_mode softmax --expert_mixing parameters", **DENSE),
    "lora": learned(f"{LORA} --router_mode softmax", **PLAIN),
    "poly": learned(POLY, **PLAIN),
    "mhr": learned(f"{POLY} --lora_splits 4", **PLAIN),
    "lstm": learned("--router_nn_type lstm"),
    "transformer": learned("--router_nn_type transformer"),
    "text": learned("--freeze_task_model", vectors="text"),
    "fisher": learned("--freeze_task_model", vectors="fisher"),
    "two_stage": Variant(module=TWO_STAGES, **DENSE),
    "fisher_two_stage": Variant(module=TWO_STAGES, vectors="fisher", **DENSE),
    "gradient_routing": Variant(module=REFINED_ROUTING, vectors="gradient"),
    "gradient_upcycled": Variant(module=REFINED_ROUTING, vectors="gradient"),
    "fisher_clusters": Variant("--task_routes clusters:{clusters}", vectors="fisher"),
    "ontology": Variant("--task_routes ontology"),
}
