r"""Whether a change leaves results the same: tiny runs over all sources of routes, compared byte for byte.

    python benchmarks/equivalence.py BEFORE                     at the commit before a change (4 minutes)
    python benchmarks/equivalence.py AFTER                      after it
    diff -rq -x run.json -x cost.json -x configurations -x sets -x '*.log' -x '*log.txt' \
        -x '*.p[nd][gf]' -x '*.gif' BEFORE AFTER            what differs, but for costs, times, pictures

The first two run the commands in this file, each in a process of its own, and print their processor time; all
run, even if one fails. Exits with 1 if a command failed.
"""

import argparse
import json
import os
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINED = (
    *("swap-travel-command", "sentiment-food-labels", "extraction-shop-command"),
    *("counting-food-command", "comparison-shop-choice", "lookup-shop-choice"),
)
UNSEEN = ("swap-food-command", "counting-shop-qa")
TEXTS = "--max_input_length 96 --max_output_length 16 --num_beams 2 --max_tokens_per_micro_batch 2048"
TRAIN = (
    f"train --train_dir gym --model bart --custom_tasks_splits split.json --debug {TEXTS}"
    " --predict_batch_size 16 --train_batch_size 4 --learning_rate 1e-3"
    " --total_steps 6 --eval_period 3 --eval_max_examples 2 --predict_max_examples 3"
)
LORA = "--expert_kind lora --lora_rank 4 --learning_rate 1e-2"
TABLE = f"{LORA} --lora_mixing factors --router_nn_type table --router_mode bernoulli"
CLUSTERS = "--taskvecs vectors/text --freeze_task_model --task_routes"
RUNS = {
    "softmax": "--router_mode softmax --measures performance answer_loss rank_accuracy",
    "gumbel": "--router_mode gumbel_softmax --load_balance 0.1 --task_sampling temperature:2",
    "straight_through": "--exploration_epsilon 0.1 --expert_regularization 0.1",
    "top_k": "--router_mode top_k --router_top_k 2 --no_text_vectors",
    "smear": "--router_mode softmax --expert_mixing parameters --hide_task_names",
    "average": "--avg_routing --scoring rank",
    "random": "--random_routing --random_eval_draws 2 --no_text_vectors",
    "task_random": "--task_level_random_routing --task_level_random_n 2",
    "one_bart": "--num_experts 1",
    "file": "--task_routes routes.json --init_eps 0.01 --select_by answer_loss --no_text_vectors",
    "clusters": f"{CLUSTERS} clusters:3",
    "random_groups": f"{CLUSTERS} random:clusters:3:7",
    "tasks": f"--task_routes tasks {LORA}",
    "shared_base": f"--task_routes routes.json --shared_base --base_lr 1e-4 {LORA}",
    "poly": TABLE.replace("1e-2", "3e-2"),
    "mhr": f"{TABLE} --lora_splits 2",
}
GRID = (
    f"finetune {TEXTS} --samples 13 21 --learning_rate_list 1e-3 3e-3 --bsz_list 4 --total_steps 6"
    " --eval_period 3 --warmup_steps 1 --predict_max_examples 8 --predict_batch_size 16 --quiet --moe_init"
)


def commands() -> list[str]:
    """Returns the command lines of `routing-moe`; each reads only what earlier ones wrote."""
    data = "--train_dir gym --custom_tasks_splits split.json"
    return [
        "skill-gym --output_dir gym",
        "vectors random --custom_tasks_splits split.json --taskvecs_dim 16 --output_dir vectors/random",
        f"vectors text {data} --model bart --max_examples 8 --output_dir vectors/text",
        f"vectors gradient {data} --tasks train --model bart --max_examples 8 --output_dir vectors/gradient",
        *(f"{TRAIN} {flags} --output_dir runs/{name}" for name, flags in RUNS.items()),
        "merge --routes_from runs/softmax --model bart --output_dir runs/stage2",
        f"{TRAIN} --checkpoint_name init --router_lr 0 --task_model_lr 0"
        " --initial_tau 300 --minimum_tau 1 --anneal_rate 2 --output_dir runs/stage2",
        f"{GRID} --init_dir runs/gumbel --task_dir gym/{UNSEEN[0]} --output_dir grids/fixed",
        f"{GRID} --init_dir runs/poly --task_dir gym/{UNSEEN[1]} --route_training logits"
        " --output_dir grids/logits",
        "train --do_predict --predict_split test --task_vector nearest --output_dir runs/softmax",
        "train --do_predict --predict_split test --task_routes lowest_loss --output_dir runs/clusters",
        "ablate runs/softmax --max_examples 2 --output_dir ablation",
        f"answer --checkpoint runs/softmax --task {TRAINED[0]} --inputs texts.txt --output_file known.jsonl",
        "answer --checkpoint runs/tasks --like texts.txt --inputs texts.txt --output_file like.jsonl",
        f"export --checkpoint runs/straight_through --task {TRAINED[0]} --output_dir exported",
        "compare runs/softmax runs/average runs/tasks --columns dev test categories --output_dir tables",
    ]


def run_all(folder: Path) -> int:
    """Runs the commands in a new folder. Returns the number of those that failed."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "task/skill_gym/tiny_bart", folder / "bart")
    split = {"train": TRAINED, "dev": [], "test": UNSEEN}
    (folder / "split.json").write_text(json.dumps(split))
    routes = {task: number % 2 for number, task in enumerate(TRAINED)}
    (folder / "routes.json").write_text(json.dumps(routes | {TRAINED[0]: {"encoder": 1, "decoder": 0}}))
    (folder / "texts.txt").write_text(
        "swap the ends : ada boat ship truck\nswap the ends : omar plane bike\n"
    )
    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    sys.path.insert(0, str(ROOT))
    import accelerate  # noqa: F401

    from routing_moe import RoutingBartForConditionalGeneration  # noqa: F401

    failed = 0
    for number, command in enumerate(commands()):
        start = os.times().children_user
        # A fork of this process, which has imported the libraries.
        process = get_context("fork").Process(target=run, args=(command, folder, f"{number:02d}.log"))
        process.start()
        process.join()
        failed += process.exitcode != 0
        print(f"{os.times().children_user - start:5.1f} s, exit {process.exitcode}: {command}", flush=True)
    return failed


def run(command: str, folder: Path, log: str) -> None:
    """Runs a command of `routing-moe` in a folder, and ends this process with its exit code."""
    from routing_moe.cli.entry import main

    os.chdir(folder)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["routing-moe", *command.split()]
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("out", type=Path, help="new folder")
    return int(run_all(parser.parse_args(argv).out) > 0)


if __name__ == "__main__":
    sys.exit(main())
