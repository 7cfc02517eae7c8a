"""Few-shot fine-tuning on one task: a grid of samples x learning rates x batch sizes, chosen by dev scores.

May import: training and below, dataloader.

checks.py          problems of flags and files      task_choices.py    the task's vector or route
starting_model.py  the model to fine-tune         trial.py           runs configurations
grid.py            missing configurations, result files
"""
