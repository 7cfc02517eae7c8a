"""The embedded gym: small tasks built from known skills, and the tiny BART trained for them.

    routing-moe skill-gym --output_dir data/skill_gym      # write the gym (seconds)

`TINY_BART` is the folder of the shipped model: config, float16 weights and tokenizer. `transformers` loads it
without this package. It was pre-trained as BART was (Lewis et al. 2020) on raw text about the same invented
world, never on rows of the gym: 3500 steps of 32 documents. Its code is in the history:
`python -m task.skill_gym.pretrain --output_dir data/tiny_bart` at commit cfd5264 made the weights.
"""

from pathlib import Path

TINY_BART = Path(__file__).parent / "tiny_bart"
