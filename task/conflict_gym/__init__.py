"""The conflict gym: tasks whose hidden skills contradict each other, so that the route of a task can matter.

    routing-moe conflict-gym --output_dir data/conflict_gym          # write a gym (seconds)
    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/conflict_bart   # a BART for it

docs/conflict_gym.md describes it. The folder tiny_bart has a BART for texts of any kind: 1.1 million
float16 weights, pre-trained as BART was (Lewis et al. 2020), for 3500 steps of 32 documents in simple English
(`python -m task.skill_gym.pretrain --output_dir data/tiny_bart` at commit cfd5264).
"""
