"""The conflict gym: tasks whose hidden skills contradict each other, so that the route of a task can matter.

    python -m task.conflict_gym.generate --output_dir data/conflict_gym          # write a gym (seconds)
    python -m task.conflict_gym.bart --gym data/conflict_gym --output_dir data/conflict_bart   # a BART for it

docs/conflict_gym.md describes it.
"""
