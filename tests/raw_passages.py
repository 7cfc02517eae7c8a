"""Invented raw files of the tasks about passages and of those that generate text, and their lines."""

from raw_mirror import case, jsonl


def squad(*paragraphs: dict) -> dict:
    return {"version": "1.0", "data": [{"title": "Tea", "paragraphs": list(paragraphs)}]}


def asked(question: str, *answers: str) -> dict:
    texts = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": question, "question": question, "answers": texts}


def quail(domain: str, body: str, question: str, *answers: str) -> str:
    """Returns the XML document of one text with one question; the right answer has a star."""
    items = "".join(
        f'    <a correct="{answer.endswith("*")}">\n     {answer.rstrip("*")}\n    </a>\n'
        for answer in answers
    )
    return (
        f'<data>\n <text domain="{domain}" id="f1">\n  <metadata>\n   <title>\n    Tea\n   </title>\n'
        f"  </metadata>\n  <text_body>\n   {body}\n  </text_body>\n  <questions>\n"
        f'   <q id="f1_0" type="Causality">\n    {question}\n{items}   </q>\n'
        "  </questions>\n </text>\n</data>\n"
    )


PASSAGES = {
    "cosmos_qa": case(
        {
            "train.csv": "id,context,question,answer0,answer1,answer2,answer3,label\n"
            '3Q##1,"Ann ran , "" fast "" .",Why ?,None of the above choices .,Fun .,Rain .,Tea .,2\n',
            "valid.csv": "id,context,question,answer0,answer1,answer2,answer3,label\n"
            "3R##2,Bo sat .,Where ?,Here .,There .,Home .,Ulm .,0\n",
        },
        train=[
            'Why ? [SEP] Ann ran , " fast " . [SEP]  (A) None of the above choices . '
            "(B) Fun . (C) Rain . (D) Tea .\tRain ."
        ],
        validation=["Where ? [SEP] Bo sat . [SEP]  (A) Here . (B) There . (C) Home . (D) Ulm .\tHere ."],
    ),
    "dream": case(
        {
            "train.json": [
                [
                    ["M: Tea?", "W: Yes."],
                    [
                        {"question": "What?", "choice": ["Tea.", "Milk.", "Ice."], "answer": "Tea."},
                        {"question": "Who?", "choice": ["Ann.", "Bo.", "Cy."], "answer": "Bo."},
                    ],
                    "5-510",
                ]
            ],
            "dev.json": [
                [["W: No."], [{"question": "Why?", "choice": ["A", "B", "C"], "answer": "C"}], "5-9"]
            ],
        },
        train=[
            "What? [SEP] M: Tea? W: Yes. [SEP]  (A) Tea. (B) Milk. (C) Ice.\tTea.",
            "Who? [SEP] M: Tea? W: Yes. [SEP]  (A) Ann. (B) Bo. (C) Cy.\tBo.",
        ],
        validation=["Why? [SEP] W: No. [SEP]  (A) A (B) B (C) C\tC"],
    ),
    "quail": case(
        {
            "quail_1.3_train_randomized.xml": quail(
                "fiction", "Ann &amp; Bo ran.\nThey won.", "Who ran?", "Cy", "Ann and Bo*", "not enough", "Di"
            ),
            "quail_1.3_dev_randomized.xml": quail("news", "It rained.", "What?", "Rain*", "Sun", "Ice", "no"),
        },
        train=["Who ran?(A)Cy(B)Ann and Bo(C)not enough(D)Di [SEP] Ann & Bo ran. They won.\tAnn and Bo"],
        validation=["What?(A)Rain(B)Sun(C)Ice(D)no [SEP] It rained.\tRain"],
    ),
    **{
        f"race-{level}": case(
            {
                f"RACE/{folder}/{level}/{name}.txt": {
                    "answers": [answer for _, answer in questions],
                    "options": [["tea", "ice\tcream", "sun", "sky"] for _ in questions],
                    "questions": [question for question, _ in questions],
                    "article": f"Text {name}.\nEnd.",
                    "id": f"{level}{name}.txt",
                }
                for folder, level, name, questions in (
                    ("train", "high", "10", [("What is _ ?", "A"), ("Who?", "B")]),
                    ("train", "high", "9", [("Where?", "D")]),
                    ("train", "middle", "1", [("How?", "C")]),
                    ("dev", "high", "2", [("Why?", "B")]),
                    ("dev", "middle", "3", [("When?", "A")]),
                    ("test", "high", "4", [("Not used?", "A")]),
                )
            },
            train=train,
            validation=validation,
        )
        for level, train, validation in (
            (
                "high",
                [
                    "What is _ ? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 10. End.\ttea",
                    "Who? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 10. End.\tice cream",
                    "Where? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 9. End.\tsky",
                ],
                ["Why? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 2. End.\tice cream"],
            ),
            (
                "middle",
                ["How? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 1. End.\tsun"],
                ["When? (A) tea (B) ice cream (C) sun (D) sky [SEP] Text 3. End.\ttea"],
            ),
        )
    },
    "sciq": case(
        {
            "SciQ dataset-2 3/train.json": [
                {
                    **{"question": "What is hot?", "distractor3": "ice", "distractor1": "snow"},
                    **{"distractor2": "fog", "correct_answer": "tea", "support": "Tea\nis hot."},
                },
                {
                    **{"question": "No support?", "distractor3": "c", "distractor1": "a"},
                    **{"distractor2": "b", "correct_answer": "d", "support": ""},
                },
            ],
            "SciQ dataset-2 3/valid.json": [
                {
                    **{"question": "Old?", "distractor3": "c", "distractor1": "a", "distractor2": "b"},
                    **{"correct_answer": "ulm", "support": "Ulm is old."},
                }
            ],
        },
        train=["What is hot? (A) fog (B) tea (C) snow (D) ice [SEP] Tea is hot.\ttea"],
        validation=["Old? (A) b (B) ulm (C) a (D) c [SEP] Ulm is old.\tulm"],
    ),
    "social_i_qa": case(
        {
            "socialiqa-train-dev/train.jsonl": jsonl(
                {
                    "context": "Ann won.",
                    "question": "Why?",
                    "answerA": "luck",
                    "answerB": "tea",
                    "answerC": "fog",
                },
                {
                    "context": "Bo sat.",
                    "question": "How?",
                    "answerA": "up",
                    "answerB": "low",
                    "answerC": "on",
                },
            ),
            "socialiqa-train-dev/train-labels.lst": "3\n1\n",
            "socialiqa-train-dev/dev.jsonl": jsonl(
                {
                    "context": "Cy ate.",
                    "question": "What?",
                    "answerA": "ice",
                    "answerB": "pie",
                    "answerC": "no",
                }
            ),
            "socialiqa-train-dev/dev-labels.lst": "2\n",
        },
        train=[
            "Why? (A) luck (B) tea (C) fog [SEP] Ann won.\tfog",
            "How? (A) up (B) low (C) on [SEP] Bo sat.\tup",
        ],
        validation=["What? (A) ice (B) pie (C) no [SEP] Cy ate.\tpie"],
    ),
    "wiqa": case(
        {
            f"{split}.jsonl": jsonl(
                {
                    "question": {
                        "stem": "suppose rain falls, how will it affect tea.",
                        "para_steps": ["Water boils.", "Tea is made."],
                        "answer_label": "more",
                        "answer_label_as_choice": letter,
                        "choices": [
                            {"label": "A", "text": "more"},
                            {"label": "B", "text": "less"},
                            {"label": "C", "text": "no effect"},
                        ],
                    },
                    "metadata": {"ques_id": "q", "graph_id": "1", "para_id": "2"},
                }
            )
            for split, letter in (("train", "C"), ("dev", "A"))
        },
        train=[
            "suppose rain falls, how will it affect tea. (A) more (B) less (C) no effect "
            "[SEP] Water boils. Tea is made.\tno effect"
        ],
        validation=[
            "suppose rain falls, how will it affect tea. (A) more (B) less (C) no effect "
            "[SEP] Water boils. Tea is made.\tmore"
        ],
    ),
    "adversarialqa": case(
        {
            "combined/train.json": squad({"context": " Ann ran. ", "qas": [asked("Who ran?", "Ann")]}),
            "combined/dev.json": squad({"context": "Bo sat.", "qas": [asked("Who? ", "Bo", " Bo ")]}),
        },
        train=["question: Who ran? context: Ann ran.\tAnn"],
        validation=["question: Who? context: Bo sat.\tBo\tBo"],
    ),
    "quoref": case(
        {
            "quoref-train-dev-v0.1/quoref-train-v0.1.json": squad(
                {
                    "context": "Ann ran.\nShe won with Bo.",
                    "qas": [asked("Who won?", "Ann", "Bo"), asked("Who ran?", "Ann")],
                    "context_id": "7",
                }
            ),
            "quoref-train-dev-v0.1/quoref-dev-v0.1.json": squad(
                {"context": "Cy.", "qas": [asked("Who?", "Cy")]}
            ),
        },
        train=[
            "question: Who won? context: Ann ran. She won with Bo.\tAnn\tBo",
            "question: Who ran? context: Ann ran. She won with Bo.\tAnn",
        ],
        validation=["question: Who? context: Cy.\tCy"],
    ),
    "ropes": case(
        {
            ("ropes-train-dev-v1.0/train-v1.0.json", "ropes/train-v1.0.json"): squad(
                {
                    "background": "Ice melts. ",
                    "situation": "Ann has ice,\nBo tea.",
                    "qas": [asked("Who?", "Bo")],
                }
            ),
            ("ropes-train-dev-v1.0/dev-v1.0.json", "ropes/dev-v1.0.json"): squad(
                {"background": "Rain falls.", "situation": "Cy is out.", "qas": [asked("Wet?", "Cy")]}
            ),
        },
        train=["question: Who? [SEP] situation: Ann has ice, Bo tea. [SEP] background: Ice melts.\tBo"],
        validation=["question: Wet? [SEP] situation: Cy is out. [SEP] background: Rain falls.\tCy"],
    ),
    "squad-with_context": case(
        {
            "dataset/train-v1.1.json": squad(
                {"context": "Ulm is  old.", "qas": [asked(" What is old?", "Ulm")]},
                {"context": "Ann won.", "qas": [asked("Who?", "Ann")]},
            ),
            "dataset/dev-v1.1.json": squad({"context": "Bo sat.", "qas": [asked("Who?", "Bo", "Bo ", "he")]}),
        },
        train=["question: What is old? context: Ulm is old.\tUlm", "question: Who? context: Ann won.\tAnn"],
        validation=["question: Who? context: Bo sat.\tBo\the"],
    ),
    "biomrc": case(
        {
            f"dataset_{split}_B.json.gz": {
                "abstracts": [f"{first} helps\n@entity1 .", "@entity2 grows ."],
                "titles": ["XXXX helps .", "XXXX grows ."],
                "entities_list": [["@entity1 :: ['tea']"], ["@entity2 :: ['ice']"]],
                "answers": ["@entity1 :: ['tea']", "@entity2 :: ['ice']"],
            }
            for split, first in (("train", "Tea"), ("val", "Milk"))
        },
        train=[
            "question: XXXX helps . context: Tea helps @entity1 .\t@entity1 :: ['tea']",
            "question: XXXX grows . context: @entity2 grows .\t@entity2 :: ['ice']",
        ],
        validation=[
            "question: XXXX helps . context: Milk helps @entity1 .\t@entity1 :: ['tea']",
            "question: XXXX grows . context: @entity2 grows .\t@entity2 :: ['ice']",
        ],
    ),
    "duorc": case(
        {
            "dataset/SelfRC_train.json": [
                {
                    "id": "/m/1",
                    "plot": " Ann runs.\n\nShe wins. ",
                    "title": "Run",
                    "qa": [
                        {
                            "id": "a",
                            "question": "Who? ",
                            "answers": ["Ann", "she", "Ann "],
                            "no_answer": False,
                        },
                        {"id": "b", "question": "Why?", "answers": [], "no_answer": True},
                    ],
                }
            ],
            "dataset/SelfRC_dev.json": [
                {"plot": "Bo sat.", "qa": [{"question": "Who?", "answers": ["Bo"], "no_answer": False}]}
            ],
        },
        train=["question: Who? context: Ann runs. She wins.\tAnn\tshe"],
        validation=["question: Who? context: Bo sat.\tBo"],
    ),
    "qa_srl": case(
        {
            "wiki1.train.qa": "WIKI1_0\t2\nAnn gave Bo tea and ran .\n"
            "1\tgave\t2\n"
            "who\t_\t_\tgave\tsomething\t_\t_\t?\tAnn\n"
            "what\tdid\tsomeone\tgive\t_\tto\tsomeone\t?\ttea ### hot tea\n"
            "5\tran\t0\n"
            "\nWIKI1_1\t1\nIt rained .\n"
            "1\trained\t1\n"
            "what\t_\t_\trained\t_\t_\t_\t?\tIt\tthe sky\n\n",
            "wiki1.dev.qa": "WIKI1_9\t1\nBo sat .\n1\tsat\t1\nwho\t_\t_\tsat\t_\t_\t_\t?\tBo\n",
        },
        train=[
            "question: who _ _ gave something _ _ ? context: Ann gave Bo tea and ran .\tAnn",
            "question: what did someone give _ to someone ? context: Ann gave Bo tea and ran .\ttea\thot tea",
            "question: what _ _ rained _ _ _ ? context: It rained .\tIt\tthe sky",
        ],
        validation=["question: who _ _ sat _ _ _ ? context: Bo sat .\tBo"],
    ),
    "tweet_qa": case(
        {
            ("TweetQA_data/train.json", "origin_data/train.json"): [
                {
                    "Question": "who won?",
                    "Answer": ["ann"],
                    "Tweet": "Ann won!\n— Bo (@bo) May 1, 2015",
                    "qid": "a",
                }
            ],
            ("TweetQA_data/dev.json", "origin_data/dev.json"): [
                {"Question": "what  fell", "Answer": ["rain", "the  rain"], "Tweet": "Rain fell.", "qid": "b"}
            ],
        },
        train=["question: who won? context: Ann won! — Bo (@bo) May 1, 2015\tann"],
        validation=["question: what fell context: Rain fell.\train\tthe rain"],
    ),
}
