"""Invented raw files of SuperGLUE, and their lines."""

from raw_mirror import case, jsonl


def winograd(text: str, label: bool, span1: str, index1: int, span2: str, index2: int) -> dict:
    target = {"span1_text": span1, "span1_index": index1, "span2_text": span2, "span2_index": index2}
    return {"text": text, "target": target, "idx": 0, "label": label}


SUPERGLUE = {
    "superglue-cb": case(
        {
            "CB/train.jsonl": jsonl(
                {"premise": "B: It rains.", "hypothesis": "it rains", "label": "entailment", "idx": 0},
                {"premise": "A: It may.", "hypothesis": "it does", "label": "neutral", "idx": 1},
            ),
            ("CB/val.jsonl", "cb/val.jsonl"): jsonl(
                {"premise": "A: No.", "hypothesis": "yes", "label": "contradiction", "idx": 0}
            ),
        },
        train=[
            "premise: B: It rains. [SEP] hypothesis: it rains\tentailment",
            "premise: A: It may. [SEP] hypothesis: it does\tneutral",
        ],
        validation=["premise: A: No. [SEP] hypothesis: yes\tcontradiction"],
    ),
    "superglue-copa": case(
        {
            "COPA/train.jsonl": jsonl(
                {
                    "premise": "Ann fell.",
                    "choice1": "Ice.",
                    "choice2": "Tea.",
                    "question": "cause",
                    "label": 0,
                }
            ),
            ("COPA/val.jsonl", "copa/val.jsonl"): jsonl(
                {
                    "premise": "Bo ate.",
                    "choice1": "Ran.",
                    "choice2": "Slept.",
                    "question": "effect",
                    "label": 1,
                }
            ),
        },
        train=["Ann fell. (A) Ice. (B) Tea.\tIce."],
        validation=["Bo ate. (A) Ran. (B) Slept.\tSlept."],
    ),
    "superglue-multirc": case(
        {
            "MultiRC/train.jsonl": jsonl(
                {
                    "idx": 0,
                    "version": 1.1,
                    "passage": {
                        "text": "Ann ran.\nBo sat.",
                        "questions": [
                            {
                                "question": "Who ran?",
                                "answers": [
                                    {"text": "Ann", "idx": 0, "label": 1},
                                    {"text": "Bo", "idx": 1, "label": 0},
                                    {"text": "A girl", "idx": 2, "label": 1},
                                ],
                                "idx": 0,
                            },
                            {
                                "question": "Who sang?",
                                "answers": [{"text": "Bo", "idx": 3, "label": 0}],
                                "idx": 1,
                            },
                        ],
                    },
                }
            ),
            "MultiRC/val.jsonl": jsonl(
                {
                    "idx": 0,
                    "passage": {
                        "text": "It rained.",
                        "questions": [
                            {"question": "What?", "answers": [{"text": "Rain", "label": 1}], "idx": 0}
                        ],
                    },
                }
            ),
        },
        train=[
            "question: Who ran? (A) Ann (B) Bo (C) A girl context: Ann ran. Bo sat.\tAnn [SEP] A girl",
            "question: Who sang? (A) Bo context: Ann ran. Bo sat.\tNO ANSWER!",
        ],
        validation=["question: What? (A) Rain context: It rained.\tRain"],
    ),
    "superglue-record": case(
        {
            f"ReCoRD/{split}.jsonl": jsonl(
                {
                    "source": "Daily mail",
                    "passage": {"text": "Ulm is old.\n@highlight\nAnn likes it", "entities": []},
                    "qas": [
                        {
                            "query": f"@placeholder {verb} it",
                            "answers": [{"start": 1, "end": 2, "text": text} for text in answers],
                        }
                        for verb, answers in queries
                    ],
                    "idx": 0,
                }
            )
            for split, queries in (
                ("train", [("likes", ("Bo", "Ann", "Bo")), ("sees", ("Ulm",))]),
                ("val", [("knows", ("Cy",))]),
            )
        },
        train=[
            "question: @placeholder likes it context: Ulm is old. @highlight Ann likes it\tAnn",
            "question: @placeholder sees it context: Ulm is old. @highlight Ann likes it\tUlm",
        ],
        validation=["question: @placeholder knows it context: Ulm is old. @highlight Ann likes it\tCy"],
    ),
    "superglue-wic": case(
        {
            "WiC/train.jsonl": jsonl(
                {
                    **{"word": "bank", "sentence1": "A river bank.", "sentence2": "The bank is shut."},
                    **{"idx": 0, "label": False, "start1": 8, "end1": 12, "version": 1.1},
                }
            ),
            "WiC/val.jsonl": jsonl(
                {"word": "tea", "sentence1": "Hot tea.", "sentence2": "No tea.", "idx": 0, "label": True}
            ),
        },
        train=["word: bank [SEP] sentence 1: A river bank. [SEP] sentence 2: The bank is shut.\tfalse"],
        validation=["word: tea [SEP] sentence 1: Hot tea. [SEP] sentence 2: No tea.\ttrue"],
    ),
    "superglue-wsc": case(
        {
            "WSC/train.jsonl": jsonl(
                winograd("Ann told Bo that she won.", True, "Ann", 0, "she", 4),
                winograd("The cat sat. It slept.", True, "the cat.", 0, "it", 3),
                winograd("In Ulm the old man sang.", False, "The old\nman", 2, "ulm", 1),
                winograd("So Kamenev left with Bo.", True, "Kamenev and Zinoviev", 2, "Bo.", 4),
                winograd("They left.", True, "Kamenev, Zinoviev, and Stalin", 1, "They", 0),
            ),
            "WSC/val.jsonl": jsonl(winograd("Bo met Cy. He ran.", False, "bo", 0, "He", 3)),
        },
        train=[
            "text: Ann told Bo that she won. [SEP] span1_textAnn [SEP] span2_text: she\ttrue",
            "text: The cat sat. It slept. [SEP] span1_textThe cat [SEP] span2_text: It\ttrue",
            "text: In Ulm the old man sang. [SEP] span1_textthe old man [SEP] span2_text: Ulm\tfalse",
            "text: So Kamenev left with Bo. [SEP] span1_textKamenev and Zinoviev [SEP] span2_text: Bo.\ttrue",
            "text: They left. [SEP] span1_textKamenev, Zinoviev, and Stalin [SEP] span2_text: They\ttrue",
        ],
        validation=["text: Bo met Cy. He ran. [SEP] span1_textBo [SEP] span2_text: He\tfalse"],
    ),
}
