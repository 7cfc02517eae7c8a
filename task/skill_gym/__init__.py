"""The embedded gym: small tasks built from known skills, and the tiny BART trained for them.

    python -m task.skill_gym.generate --output_dir data/skill_gym      # write the gym (seconds)
    python -m task.skill_gym.pretrain --output_dir data/tiny_bart      # train the tiny BART again (minutes)

`TINY_BART` is the folder of the shipped model: config, float16 weights and tokenizer. `transformers` loads it
without this package. It was pre-trained on raw text about the same invented world (`stories.py`), never on
rows of the gym.
"""

from pathlib import Path

TINY_BART = Path(__file__).parent / "tiny_bart"
