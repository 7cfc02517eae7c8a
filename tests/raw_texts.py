"""Invented raw files of the tasks that generate, parse or summarize text, and their lines."""

from raw_mirror import case, jsonl

AESLC = "AESLC-master/enron_subject_line"

TEXTS = {
    "empathetic_dialogues": case(
        {
            "empatheticdialogues/train.csv": "conv_id,utterance_idx,"
            "context,prompt,speaker_idx,utterance,selfeval,tags\n"
            "hit:0_conv:1,1,proud,I won_comma_ at last.,1,I won a cup!,5|5|5_2|2|5,\n"
            'hit:0_conv:1,2,proud,I won_comma_ at last.,0,Oh_comma_ a "cup"?,5|5|5_2|2|5,<TEA>\n'
            "hit:0_conv:2,1,sad,It rained.,3,It rained all day.,5|5|5_2|2|5,\n"
            "hit:0_conv:3,1,proud,I won_comma_ at last.,4,Yes I did.,5|5|5_2|2|5,\n",
            "empatheticdialogues/valid.csv": "conv_id,utterance_idx,"
            "context,prompt,speaker_idx,utterance,selfeval,tags\n"
            "hit:1_conv:2,1,afraid,It is dark.,1,I see nothing.,5|5|5_2|2|5,\n"
            "hit:1_conv:2,2,afraid,It is dark.,0,hit:3 is the code.,5|5|5_2|2|5,\n",
        },
        train=[
            'I won, at last. [SEP] proud\tI won a cup!\tOh, a "cup"?\tYes I did.',
            "It rained. [SEP] sad\tIt rained all day.",
        ],
        validation=["It is dark. [SEP] afraid\tI see nothing."],
    ),
    "aslg_pc12": case(
        {
            "corpus/sample-corpus-asl-en.asl": "WRITE STATEMENT \nX-I DESC-OLD\nNO TEXT\n",
            "corpus/sample-corpus-asl-en.en": "written statements \r\ni am old\r\n",
        },
        train=["written statements\tWRITE STATEMENT", "i am old\tX-I DESC-OLD"],
    ),
    "cos_e": case(
        {
            **{
                f"cose_{split}_v1.11_processed.jsonl": jsonl(
                    *(
                        {"id": name, "explanation": {"open-ended": f"{name} is so", "selected": "tea"}}
                        for name in names
                    )
                )
                for split, names in (("train", ("b2", "a1")), ("dev", ("c3",)))
            },
            **{
                f"{split}_rand_split.jsonl": jsonl(
                    *(
                        {
                            "answerKey": "A",
                            "id": name,
                            "question": {
                                "question_concept": "tea",
                                "choices": [
                                    {"label": "A", "text": "cup"},
                                    {"label": "B", "text": f"no {name}"},
                                ],
                                "stem": f"Where is  {name}?",
                            },
                        }
                        for name in names
                    )
                )
                for split, names in (("train", ("a1", "unexplained", "b2")), ("dev", ("c3", "d4")))
            },
        },
        train=["Where is b2? (A) cup (B) no b2\tb2 is so", "Where is a1? (A) cup (B) no a1\ta1 is so"],
        validation=["Where is c3? (A) cup (B) no c3\tc3 is so"],
    ),
    "crawl_domain": case(
        {"train.txt": "Tea House \nB O\n", "eval.txt": "old Ulm"},
        train=["teahouse\tTea House", "bo\tB O"],
        validation=["oldulm\told Ulm"],
    ),
    "e2e_nlg_cleaned": case(
        {
            "train-fixed.no-ol.csv": "mr,ref,fixed,orig_mr\n"
            '"name[Tea], area[Ulm]","Tea is a ""cafe"", in Ulm.",0,"name[Tea], area[Ulm]"\n',
            "devel-fixed.no-ol.csv": "mr,ref,fixed,orig_mr\nname[Ice],Ice is there.,1,name[Ice]\n",
        },
        train=['name[Tea], area[Ulm]\tTea is a "cafe", in Ulm.'],
        validation=["name[Ice]\tIce is there."],
    ),
    "wiki_split": case(
        {
            "train.tsv": "Ann ran and won .\tAnn ran . <::::> She won .\n"
            '"He said "" no "" and left ."\tHe said no . <::::> He left .\n',
            "validation.tsv": "It rained and Bo sat .\tIt rained . <::::> Bo sat .\n",
        },
        train=[
            "sentence 1: Ann ran .  [SEP] sentence 2:  She won .\tAnn ran and won .",
            'sentence 1: He said no .  [SEP] sentence 2:  He left .\tHe said " no " and left .',
        ],
        validation=["sentence 1: It rained .  [SEP] sentence 2:  Bo sat .\tIt rained and Bo sat ."],
    ),
    "acronym_identification": case(
        {
            "dataset/train.json": [
                {
                    "tokens": ["Hot", "Green", "Tea", "(", "HGT", ")"],
                    "labels": ["B-long", "I-long", "I-long", "O", "B-short", "O"],
                    "acronym": 4,
                    "id": "TR-0",
                },
                {"tokens": ["QA", "is", "QA"], "labels": ["B-short", "O", "B-short"], "id": "TR-1"},
            ],
            "dataset/dev.json": [
                {"labels": ["B-short", "O", "B-long"], "id": "DEV-0", "tokens": ["TV", "=", "television"]}
            ],
        },
        train=["Hot Green Tea ( HGT ) [SEP] acronym: HGT\tHot Green Tea"],
        validation=["TV = television [SEP] acronym: TV\ttelevision"],
    ),
    "break-QDMR-high-level": case(
        {
            (
                f"Break-dataset/QDMR-high-level/{split}.csv",
                f"break_dataset/QDMR-high-level/{split}.csv",
            ): "question_id,question_text,decomposition,operators,split\r\n"
            f'DROP_{split}_1,"Who, of two, won?","return people ;return #1 that ""won"" in {split}",'
            f"\"['select', 'filter']\",{split}\r\n"
            for split in ("train", "dev")
        },
        train=['question: Who, of two, won?\treturn people ;return #1 that "won" in train'],
        validation=['question: Who, of two, won?\treturn people ;return #1 that "won" in dev'],
    ),
    "limit": case(
        {
            "train.json": {
                "0": {
                    "sentence": " Ann throws: a ball.",
                    "motion": "yes",
                    "motion_entity": "Ann:1\nball: red:16",
                },
                "1": {"sentence": "Bo is old.", "motion": "no", "motion_entity": ""},
                "2": {"sentence": "It moves.", "motion": "yes", "motion_entity": None},
            },
            "test.json": {"0": {"sentence": "Cy runs.", "motion": "yes", "motion_entity": "Cy:0"}},
        },
        train=["Ann throws: a ball.\tAnn [SEP] ball: red", "It moves.\t"],
        test=["Cy runs.\tCy"],
    ),
    "aeslc": case(
        {
            "AESLC-master/README.md": "emails",
            f"{AESLC}/train/lee-a_sent_2.subject": "Hi Bo,\nsee you.\n\n@subject\nTea\n\n@ann0\nCake\n",
            f"{AESLC}/train/lee-a_sent_10.subject": "Come  at 5.\n\n@subject\nTea at\nfive",
            f"{AESLC}/dev/ray-b_inbox_1.subject": "It rains.\r\n\r\n@subject\r\nRain\r\n"
            "\r\n@ann0\r\nNo sun\r\n",
            f"{AESLC}/test/ray-b_inbox_2.subject": "Not used.\n\n@subject\nTest\n",
        },
        train=["summarize: Come at 5.\tTea at five", "summarize: Hi Bo, see you.\tTea"],
        validation=["summarize: It rains.\tRain"],
    ),
}
