"""The conflict gym: tasks whose hidden skills contradict each other, so that the route of a task can matter.

    routing-moe conflict-gym --output_dir data/conflict_gym          # write a gym (seconds)
    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/conflict_bart   # a BART for it

docs/conflict_gym.md describes it.
"""
