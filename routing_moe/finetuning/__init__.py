"""Few-shot fine-tuning on one task: a grid of samples x learning rates x batch sizes, chosen by dev scores.

May import: training and below, dataloader.

settings.py        flags and configurations       checks.py, unused_flags.py  faults, found before any work
vectors.py         the task's vector              starting_model.py           the model of the start
trial.py           one configuration, run         executors.py                here, in processes, on Ray
grid.py            what is missing, files, results.csv
"""
