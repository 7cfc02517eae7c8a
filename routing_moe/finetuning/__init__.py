"""Few-shot fine-tuning on one task: every sample x learning rate x batch size, chosen by dev, told on test.

settings.py   flags and configurations     checks.py, idle_flags.py  what can be wrong, found before any work
vectors.py    the task's vector            starts.py                 the model that all begin with
workbench.py  one configuration, run       executors.py              here, in processes, on Ray
grid.py       what is missing, files, results.csv
"""
