"""Invented raw files of KILT, LAMA and of questions without a passage, and their lines."""

from raw_mirror import case, jsonl


def choices(**texts: str) -> list[dict[str, str]]:
    """Returns the choices of AI2's question format; A="sand" is the one with the label A."""
    return [{"text": text, "label": label} for label, text in texts.items()]


QUESTIONS = {
    "kilt_ay2": case(
        {
            "aidayago2-train-kilt.jsonl": jsonl(
                {
                    "id": "1EU",
                    "input": "[START_ENT] ULM [END_ENT] wins\nagain",
                    "output": [{"answer": "Ulm", "provenance": [{"wikipedia_id": "1", "title": "Ulm"}]}],
                    "meta": {"left_context": ""},
                }
            ),
            "aidayago2-dev-kilt.jsonl": jsonl(
                {"id": "2EU", "input": "[START_ENT] Bo [END_ENT]", "output": [{"answer": "Bo (dog)"}]}
            ),
        },
        train=["[START_ENT] ULM [END_ENT] wins again\tUlm"],
        validation=["[START_ENT] Bo [END_ENT]\tBo (dog)"],
    ),
    "kilt_nq": case(
        {
            "nq-train-kilt.jsonl": jsonl(
                {
                    "id": "5",
                    "input": "who won",
                    "output": [
                        {"answer": "Bo", "provenance": []},
                        {"provenance": [{"wikipedia_id": "7"}]},
                        {"answer": "Ann"},
                        {"answer": "Bo"},
                    ],
                }
            ),
            "nq-dev-kilt.jsonl": jsonl({"id": "6", "input": "when", "output": [{"answer": "In May"}]}),
        },
        train=["who won\tBo\tAnn"],
        validation=["when\tIn May"],
    ),
    "lama-conceptnet": case(
        {
            "ConceptNet/test.jsonl": jsonl(
                {
                    **{"sub": "tea", "obj": "hot", "pred": "HasProperty", "obj_label": "hot", "uuid": "a"},
                    **{"masked_sentences": ["Tea is [MASK]."], "negated": ["Tea is not [MASK]."]},
                },
                {"pred": "IsA", "obj_label": "city", "uuid": "b", "masked_sentences": ["Ulm is a [MASK]."]},
            )
        },
        train=["Tea is [MASK].\thot", "Ulm is a [MASK].\tcity"],
    ),
    "lama-google_re": case(
        {
            f"Google_RE/{relation}_test.jsonl": jsonl(
                {
                    **{"pred": f"/people/person/{relation}", "sub": "/m/01", "obj": obj, "evidences": []},
                    **{"sub_label": "Ann Lee", "obj_label": obj, "masked_sentences": sentences, "uuid": obj},
                }
            )
            for relation, obj, sentences in (
                ("place_of_death", "Rome", ["She died in [MASK]."]),
                ("date_of_birth", "1901", ["She (born [MASK]) sang.", "Born in [MASK]."]),
                ("place_of_birth", "Ulm", ["She is from [MASK]."]),
            )
        },
        train=[
            "Ann Lee (born [MASK]).\t1901",
            "Ann Lee (born [MASK]).\t1901",
            "Ann Lee was born in [MASK] .\tUlm",
            "Ann Lee died in [MASK] .\tRome",
        ],
    ),
    "freebase_qa": case(
        {
            "FreebaseQA-train.json": {
                "Dataset": "FreebaseQA-train",
                "Version": "1.0",
                "Questions": [
                    {
                        "Question-ID": "FreebaseQA-train-0",
                        "RawQuestion": "Who wrote 'Tea'?",
                        "ProcessedQuestion": "who wrote 'tea'",
                        "Parses": [
                            {
                                "Parse-Id": "FreebaseQA-train-0.P0",
                                "InferentialChain": "book.author",
                                "Answers": [{"AnswersMid": "m.1", "AnswersName": ["bo ray"]}],
                            },
                            {
                                "Parse-Id": "FreebaseQA-train-0.P1",
                                "InferentialChain": "book.by",
                                "Answers": [
                                    {"AnswersMid": "m.1", "AnswersName": ["bo ray"]},
                                    {"AnswersMid": "m.2", "AnswersName": ["ann lee"]},
                                ],
                            },
                        ],
                    }
                ],
            },
            "FreebaseQA-dev.json": {
                "Questions": [
                    {
                        "RawQuestion": "Where is Ann?",
                        "Parses": [{"Answers": [{"AnswersMid": "m.3", "AnswersName": ["ulm"]}]}],
                    }
                ]
            },
        },
        train=["Who wrote 'Tea'?\tann lee\tbo ray"],
        validation=["Where is Ann?\tulm"],
    ),
    "jeopardy": case(
        {
            "JEOPARDY_QUESTIONS1.json.gz": [
                {
                    **{"category": "DRINKS", "air_date": "2004-12-31", "question": "'It's \"hot\"'"},
                    **{"value": "$1,200", "answer": "tea", "round": "Jeopardy!", "show_number": "46"},
                },
                {"category": "CITIES", "question": "'An old one'", "value": None, "answer": "Ulm"},
            ]
        },
        train=[
            'question: It\'s "hot" [SEP] category: DRINKS\ttea',
            "question: An old one [SEP] category: CITIES\tUlm",
        ],
    ),
    "proto_qa": case(
        {
            "train.jsonl": jsonl(
                {
                    "metadata": {"id": "q0", "source": "freaky"},
                    "question": {"original": "Name a drink.", "normalized": "name a drink."},
                    "answers": {"raw": {"tea": 42, "milk": 30, "Ice tea": 5}, "clusters": {}},
                    "num": {"answers": 3},
                }
            )
        },
        train=["name a drink.\ttea\tmilk\tIce tea"],
    ),
    "web_questions": case(
        {
            "trainmodel.json": [
                {"qId": "wqr000001", "answers": ["Ulm"], "qText": "where is ann?"},
                {"qId": "wqr000004", "answers": ["May"], "qText": "when did bo go?"},
            ],
            "val.json": [{"qId": "wqr000003", "answers": ["Ann", "Cy"], "qText": "who is bo?"}],
            "devtest.json": [{"qId": "wqr000002", "answers": ["tea"], "qText": "what is it?"}],
        },
        train=["where is ann?\tUlm", "what is it?\ttea", "who is bo?\tAnn\tCy", "when did bo go?\tMay"],
    ),
    "definite_pronoun_resolution": case(
        {
            "train.c.txt": "Ann saw Bo because she looked. \nshe\nAnn,Bo\nAnn\n\n"
            "The cup fell off the desk as it was wet.\nit\nThe cup, the desk\nthe desk\n\n",
            "test.c.txt": "Bo fed Cy as he cried.\r\nhe\r\nBo,Cy\r\nCy\r\n\r\n\r\n",
        },
        train=[
            "Ann saw Bo because she looked. [SEP] she [SEP] (A) Ann (B) Bo\tAnn",
            "The cup fell off the desk as it was wet. [SEP] it [SEP] (A) The cup (B) the desk\tthe desk",
        ],
        test=["Bo fed Cy as he cried. [SEP] he [SEP] (A) Bo (B) Cy\tCy"],
    ),
    "hellaswag": case(
        {
            f"hellaswag_{split}.jsonl": jsonl(
                {
                    **{"ind": 4, "activity_label": "Tea", "ctx_a": "Ann pours.", "ctx_b": "she"},
                    **{"ctx": "Ann pours. she", "split": split, "label": label, "source_id": "a~v_1"},
                    "endings": ["sits.", "flies.", "drinks.", "is a cup."],
                }
            )
            for split, label in (("train", 2), ("val", 0))
        },
        train=["Ann pours. she (A) sits. (B) flies. (C) drinks. (D) is a cup.\tdrinks."],
        validation=["Ann pours. she (A) sits. (B) flies. (C) drinks. (D) is a cup.\tsits."],
    ),
    "numer_sense": case(
        {"train.masked.tsv": 'A cat has <mask> legs.\tfour\n"""Tea"" has <mask> letters."\tthree\n'},
        train=["A cat has [MASK] legs.\tfour", '"Tea" has [MASK] letters.\tthree'],
    ),
    "swag": case(
        {
            f"{split}.csv": ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,"
            "ending0,ending1,ending2,ending3,label\n"
            f'0,lsmdc1,32,"Ann, at home, She",Ann is at home.,She,gold,'
            f'sits.,"runs, fast.",is red.,flies.,{label}\n'
            for split, label in (("train", 1), ("val", 3))
        },
        train=["Ann, at home, She (A) sits. (B) runs, fast. (C) is red. (D) flies.\truns, fast."],
        validation=["Ann, at home, She (A) sits. (B) runs, fast. (C) is red. (D) flies.\tflies."],
    ),
    "wino_grande": case(
        {
            "winogrande_1.1/train_xl.jsonl": jsonl(
                {
                    "qID": "3",
                    "sentence": "Ann fed Bo as _ cried.",
                    "option1": "Ann",
                    "option2": "Bo",
                    "answer": "2",
                },
                {
                    "qID": "4",
                    "sentence": "Ann fed Bo as _ smiled.",
                    "option1": "Ann",
                    "option2": "Bo",
                    "answer": "",
                },
            ),
            "winogrande_1.1/dev.jsonl": jsonl(
                {"qID": "5", "sentence": "_ ran.", "option1": "Ann", "option2": "Bo", "answer": "1"}
            ),
        },
        train=["Ann fed Bo as _ cried. (A) Ann (B) Bo\tBo"],
        validation=["_ ran. (A) Ann (B) Bo\tAnn"],
    ),
    "aqua_rat": case(
        {
            "train.json": jsonl(
                {
                    **{"question": "What is\n20 + 1?", "options": ["A)21", "B)20", "C)2", "D)1", "E)0"]},
                    **{"rationale": "20 + 1 = 21", "correct": "A"},
                }
            ),
            "dev.json": jsonl(
                {"question": "Double 2?", "options": ["A)A few", "B)4", "C)2", "D)1", "E)0"], "correct": "B"}
            ),
        },
        train=["What is 20 + 1? (A) 21 (B) 20 (C) 2 (D) 1 (E) 0\t21"],
        validation=["Double 2? (A) A few (B) 4 (C) 2 (D) 1 (E) 0\t4"],
    ),
    "codah": case(
        {
            "train.tsv": 'o\tAnn sat. She\tslept.\tflew.\t"said ""no""."\tis tea.\t2\n',
            "dev.tsv": "i\tBo left the\ttea\ttable\tsky\tidea\t1\n",
        },
        train=['Ann sat. She (A) slept. (B) flew. (C) said "no". (D) is tea.\tsaid "no".'],
        validation=["Bo left the (A) tea (B) table (C) sky (D) idea\ttable"],
    ),
    "commonsense_qa": case(
        {
            f"{split}_rand_split.jsonl": jsonl(
                {
                    "answerKey": key,
                    "id": "1a2b",
                    "question": {
                        "question_concept": "tea",
                        "choices": choices(A="cup", B="sky", C="shoe", D="idea", E="sand"),
                        "stem": "Where  is tea?",
                    },
                }
            )
            for split, key in (("train", "A"), ("dev", "E"))
        },
        train=["Where is tea? (A) cup (B) sky (C) shoe (D) idea (E) sand\tcup"],
        validation=["Where is tea? (A) cup (B) sky (C) shoe (D) idea (E) sand\tsand"],
    ),
    "math_qa": case(
        {
            "train.json": [
                {
                    **{"Problem": "what is 2 + 3 ?", "Rationale": '"it is 5 "', "category": "general"},
                    **{"options": "a ) 5 , b ) 6 , c ) 7 , d ) 8 , e ) 9", "correct": "a"},
                    **{"annotated_formula": "add(2, 3)", "linear_formula": "add(n0,n1)|"},
                }
            ],
            "dev.json": [
                {"Problem": "9 - 2 ?", "options": "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 7", "correct": "e"}
            ],
        },
        train=["what is 2 + 3 ? (A) 5 (B) 6 (C) 7 (D) 8 (E) 9\t5"],
        validation=["9 - 2 ? (A) 1 (B) 2 (C) 3 (D) 4 (E) 7\t7"],
    ),
    "openbookqa": case(
        {
            "OpenBookQA-V1-Sep2018/Data/Main/train.jsonl": jsonl(
                {
                    "id": "7-980",
                    "question": {
                        "stem": '"Tea" is',
                        "choices": choices(A="hot", B='a "dry" stone', C="a (B) plan", D="old"),
                    },
                    "answerKey": "A",
                }
            ),
            "OpenBookQA-V1-Sep2018/Data/Main/dev.jsonl": jsonl(
                {
                    "id": "8-376",
                    "question": {
                        "stem": "Ice",
                        "choices": choices(A="is warm", B="melts", C="sings", D="is sad"),
                    },
                    "answerKey": "B",
                }
            ),
            "openbookqa/Main/train.tsv": "ID\tQuestion Stem\tChoices\tComplete Question\tAnswer Key\n"
            '7-980\t"Tea" is\t(A) hot (B) a "dry" stone (C) a (B) plan (D) old\t"Tea" is (A) hot ...\tA\n',
            "openbookqa/Main/dev.tsv": "ID\tQuestion Stem\tChoices\tComplete Question\tAnswer Key\n"
            "8-376\tIce\t(A) is warm (B) melts (C) sings (D) is sad\tIce (A) is warm ...\tB\n",
        },
        train=['"Tea" is (A) hot (B) a "dry" stone (C) a (B) plan (D) old\thot'],
        validation=["Ice (A) is warm (B) melts (C) sings (D) is sad\tmelts"],
    ),
    "qasc": case(
        {
            ("QASC_Dataset/train.jsonl", "qasc/data/train.jsonl"): jsonl(
                {
                    "id": "3N",
                    "question": {"stem": "What is hot?", "choices": choices(A="ice", B="tea", H="snow")},
                    "answerKey": "B",
                    "fact1": "Tea is hot.",
                }
            ),
            ("QASC_Dataset/dev.jsonl", "qasc/data/dev.jsonl"): jsonl(
                {"question": {"stem": "Old?", "choices": choices(A="Ulm", H="news")}, "answerKey": "A"}
            ),
        },
        train=["What is hot? (A) ice (B) tea (H) snow\ttea"],
        validation=["Old? (A) Ulm (H) news\tUlm"],
    ),
    "quarel": case(
        {
            f"quarel-dataset-v1/quarel-v1-{split}.jsonl": jsonl(
                {
                    **{"id": "QuaRel_V1_1", "answer_index": index, "logical_forms": []},
                    "question": "Ice is smooth. A sled is (A) slow or (B) fast",
                }
            )
            for split, index in (("train", 0), ("dev", 1))
        },
        train=["Ice is smooth. A sled is (A) slow or (B) fast\tslow"],
        validation=["Ice is smooth. A sled is (A) slow or (B) fast\tfast"],
    ),
    "quartz-with_knowledge": case(
        {
            f"quartz-dataset-v1-aug2019/{split}.jsonl": jsonl(
                {
                    "id": "QRQA-1",
                    "answerKey": key,
                    "para": "Hot tea cools.",
                    "question": {"stem": "Tea gets", "choices": choices(A="colder", B="hotter")},
                }
            )
            for split, key in (("train", "A"), ("dev", "B"))
        },
        train=["Tea getsHot tea cools. (A) colder (B) hotter\tcolder"],
        validation=["Tea getsHot tea cools. (A) colder (B) hotter\thotter"],
    ),
}
