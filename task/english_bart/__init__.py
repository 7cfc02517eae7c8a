"""A BART that knows English, made from the encoder of a BERT or RoBERTa, and a gym to warm it up on.

    routing-moe english-bart --output_dir data/english_bart        # needs the extra [sentences]

docs/english_bart.md describes it.
"""
