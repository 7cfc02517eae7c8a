"""Invented raw files of the classification tasks, and their lines."""

from raw_mirror import case, jsonl

TABLES = "Table-Fact-Checking-948b5560e2f7f8c9139bd91c7f093346a2bb56a8"
FORUM = "hate-speech-dataset-master"

LABELS = {
    "blimp-ellipsis_n_bar_1": case(
        {
            "ellipsis_n_bar_1.jsonl": jsonl(
                {"sentence_good": "Ann eats two pears.", "sentence_bad": "Ann eats pears two.", "field": "a"},
                {"sentence_good": "Bo has a cat.", "sentence_bad": "Bo has cat a.", "field": "b"},
                {"sentence_good": "Cy sees a red hat.", "sentence_bad": "Cy sees a hat red.", "field": "c"},
            )
        },
        train=[
            "sentence 1: Ann eats pears two. [SEP] sentence 2: Ann eats two pears.\tsentence 2",
            "sentence 1: Bo has a cat. [SEP] sentence 2: Bo has cat a.\tsentence 1",
            "sentence 1: Cy sees a red hat. [SEP] sentence 2: Cy sees a hat red.\tsentence 1",
        ],
    ),
    "crows_pairs": case(
        {
            "crows_pairs_anonymized.csv": ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
            '0,"Well, old people can\'t sing.","Well, babies can\'t sing.",stereo,age,'
            "\"[['age'], ['age']]\"\n"
            "1,The rich sleep late.,The poor sleep late.,antistereo,socioeconomic,[['socioeconomic']]\n"
        },
        test=[
            "sentence 1: Well, babies can't sing. [SEP] sentence 2: Well, old people can't sing.\tsentence 2",
            "sentence 1: The rich sleep late. [SEP] sentence 2: The poor sleep late.\tsentence 1",
        ],
    ),
    "climate_fever": case(
        {
            "climate-fever-dataset-1.0.1/dataset/climate-fever.jsonl": jsonl(
                {"claim_id": "0", "claim": "Ice is melting", "claim_label": "SUPPORTS", "evidences": []},
                {"claim_id": "5", "claim": "Snow is warm", "claim_label": "REFUTES", "evidences": []},
                {"claim_id": "6", "claim": "Fog is old", "claim_label": "NOT_ENOUGH_INFO", "evidences": []},
                {"claim_id": "9", "claim": "Rain is wet", "claim_label": "DISPUTED", "evidences": []},
            )
        },
        test=[
            "Ice is melting\tSupports",
            "Snow is warm\tRefutes",
            "Fog is old\tNot enough info",
            "Rain is wet\tDisputed",
        ],
    ),
    "liar": case(
        {
            "train.tsv": '1.json\thalf-true\t"Taxes fell" twice.\ttaxes'
            '\tann-lee\tMayor\tOhio\tnone\t0\t1\t0\t0\t0\ta "talk"\n'
            "2.json\tpants-fire\tThe moon is flat.\tspace\tbob-ray\t\t\tnone\t0\t0\t0\t0\t9\t\n",
            "valid.tsv": "3.json\tbarely-true\tRoads are new.\troads"
            "\tcy-fox\t\tIowa\tnone\t0\t0\t0\t0\t0\ta tweet\n",
        },
        train=[
            'statement: "Taxes fell" twice. [SEP] speaker: ann-lee [SEP] context: a "talk"\thalf-true',
            "statement: The moon is flat. [SEP] speaker: bob-ray [SEP] context: \tpants-fire",
        ],
        validation=["statement: Roads are new. [SEP] speaker: cy-fox [SEP] context: a tweet\tbarely-true"],
    ),
    "tab_fact": case(
        {
            f"{TABLES}/data/all_csv/1-10-1.html.csv": "team#wins\nlions#3\n",
            f"{TABLES}/data/all_csv/2-20-2.html.csv": "city#people\nulm#9",
            f"{TABLES}/tokenized_data/train_examples.json": {
                "2-20-2.html.csv": [["ulm be a city", "ulm be empty"], [1, 0], "cities"]
            },
            f"{TABLES}/tokenized_data/val_examples.json": {
                "1-10-1.html.csv": [["the lion win 3 time"], [1], "teams"]
            },
            f"{TABLES}/tokenized_data/test_examples.json": {},
        },
        train=[
            "statement: ulm be a city [SEP] table_caption: cities [SEP] "
            "table_text: city#people [n] ulm#9\tentailed",
            "statement: ulm be empty [SEP] table_caption: cities [SEP] "
            "table_text: city#people [n] ulm#9\trefuted",
        ],
        validation=[
            "statement: the lion win 3 time [SEP] table_caption: teams [SEP] "
            "table_text: team#wins [n] lions#3 [n] \tentailed"
        ],
    ),
    "glue-cola": case(
        {
            "CoLA/train.tsv": 'gj04\t1\t\t"Yes" is a word.\nks08\t0\t*\tCat the sleeps.\n',
            "CoLA/dev.tsv": "cj99\t1\t\tThe café is open.\n",
        },
        train=['"Yes" is a word.\tacceptable', "Cat the sleeps.\tunacceptable"],
        validation=["The café is open.\tacceptable"],
    ),
    "glue-mrpc": case(
        {
            "msr_paraphrase_train.txt": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
            '1\t10\t11\tHe said " no " .\t" No , " he said .\r\n'
            "0\t11\t10\tIt rained .\tIt snowed .\r\n"
            "1\t30\t31\tShe won .\tShe was first .\r\n",
            ("mrpc_dev_ids.tsv", "dev_ids.tsv"): "30\t31\n11\t10\n",
        },
        train=['sentence 1: He said " no " . [SEP] sentence 2: " No , " he said .\tequivalent'],
        validation=[
            "sentence 1: It rained . [SEP] sentence 2: It snowed .\tnot_equivalent",
            "sentence 1: She won . [SEP] sentence 2: She was first .\tequivalent",
        ],
    ),
    "glue-qnli": case(
        {
            "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n"
            '0\tWho won?\t"Ann won."\tentailment\n1\tWhere?\tIt rained.\tnot_entailment\n',
            "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn May.\t0\n1\tWhy?\tIn May.\t1\n",
        },
        train=[
            'question: Who won? [SEP] sentence: "Ann won."\tentailment',
            "question: Where? [SEP] sentence: It rained.\tnot_entailment",
        ],
        validation=[
            "question: When? [SEP] sentence: In May.\tentailment",
            "question: Why? [SEP] sentence: In May.\tnot_entailment",
        ],
    ),
    "glue-sst2": case(
        {
            "SST-2/train.tsv": "sentence\tlabel\na warm film \t1\nno plot \t0\n",
            "SST-2/dev.tsv": 'sentence\tlabel\n" fun " . \t1\n',
        },
        train=["sentence: a warm film \tpositive", "sentence: no plot \tnegative"],
        validation=['sentence: " fun " . \tpositive'],
    ),
    "glue-wnli": case(
        {
            "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA cup fell.\tIt fell.\t1\n",
            "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA cup fell.\tIt stood.\t0\n",
        },
        train=["sentence 1: A cup fell. [SEP] sentence 2: It fell.\tentailment"],
        validation=["sentence 1: A cup fell. [SEP] sentence 2: It stood.\tnot_entailment"],
    ),
    "ethos-directed_vs_generalized": case(
        {
            "Ethos_Dataset_Multi_Label.csv": "comment;violence;directed_vs_generalized;gender;race;"
            "national_origin;disability;religion;sexual_orientation\n"
            "You are late.;0;0.5;0;0;0;0;0;0\n"
            '"They said ""no""; twice. ";0;0.333333333;1;0;0;0;0;0\n'
        },
        train=["You are late.\tdirected", 'They said "no"; twice.\tgeneralied'],
    ),
    "hate_speech18": case(
        {
            f"{FORUM}/README.md": "Sentences of a forum",
            f"{FORUM}/annotations_metadata.csv": "file_id,user_id,subforum_id,num_contexts,label\n"
            "20_2,5,1346,0,hate\n20_1,5,1346,0,noHate\n20_3,5,1346,1,relation\n20_4,5,1346,0,idk/skip\n",
            **{f"{FORUM}/all_files/20_{i}.txt": f"I like tea {i} ." for i in range(1, 5)},
            f"{FORUM}/sampled_train/20_1.txt": "not this one",
        },
        train=["I like tea 2 .\thate", "I like tea 1 .\tnoHate"],
    ),
    "hate_speech_offensive": case(
        {
            "labeled_data.csv": ",count,hate_speech,offensive_language,neither,class,tweet\n"
            '0,3,0,0,3,2,!!! RT @ann: "tea" is good &amp; hot\n'
            '1,3,0,3,0,1,"Rain, rain\nand ""snow"""\n'
            "2,3,3,0,0,0,go away\n"
        },
        train=[
            '!!! RT @ann: "tea" is good &amp; hot\tneither',
            'Rain, rain and "snow"\toffensive language',
            "go away\thate speech",
        ],
    ),
    "hatexplain": case(
        {
            "Data/dataset.json": {
                post: {
                    "post_id": post,
                    "annotators": [
                        {"label": label, "annotator_id": 1, "target": ["None"]} for label in labels
                    ],
                    "rationales": [],
                    "post_tokens": tokens,
                }
                for post, labels, tokens in (
                    ("1_twitter", ("normal", "offensive", "normal"), ["we", "like", "tea"]),
                    ("2_gab", ("normal", "offensive", "hatespeech"), ["no", "majority"]),
                    ("3_gab", ("offensive", "offensive", "normal"), ["don't", "shout"]),
                    ("4_gab", ("hatespeech", "hatespeech", "hatespeech"), ["go", "away"]),
                )
            },
            "Data/post_id_divisions.json": {
                "train": ["4_gab", "2_gab"],
                "val": ["3_gab", "2_gab", "1_twitter"],
                "test": ["1_twitter"],
            },
            "df_val_processed.csv": "id,annotators,rationales,post_tokens,masked_tokens\n"
            '3_gab,"{\'label\': [2, 2, 1], \'annotator_id\': [1, 1, 1]}",[],"[""don\'t"", \'shout\']",[]\n'
            "2_gab,\"{'label': [1, 2, 0], 'annotator_id': [1, 1, 1]}\",[],\"['no', 'majority']\",[]\n"
            "1_twitter,\"{'label': [1, 2, 1], 'annotator_id': [1, 1, 1]}\",[],\"['we', 'like', 'tea']\",[]\n",
        },
        train=["go away\thatespeech"],
        validation=["don't shout\toffensive", "we like tea\tnormal"],
    ),
    "anli": case(
        {
            "anli_v0.1/R1/train.jsonl": jsonl(
                {"uid": "a", "context": "Ulm is\nold.", "hypothesis": "Ulm is not new.", "label": "e"},
                {
                    "uid": "b",
                    "context": "Ulm is old.",
                    "hypothesis": "Ulm is big.",
                    "label": "n",
                    "reason": "",
                },
            ),
            "anli_v0.1/R1/dev.jsonl": jsonl(
                {"uid": "c", "context": "Ulm is old.", "hypothesis": "Ulm is new.", "label": "c"}
            ),
        },
        train_r1=[
            "premise: Ulm is old. [SEP] hypothesis: Ulm is not new.\tentailment",
            "premise: Ulm is old. [SEP] hypothesis: Ulm is big.\tneutral",
        ],
        dev_r1=["premise: Ulm is old. [SEP] hypothesis: Ulm is new.\tcontradiction"],
    ),
    "art": case(
        {
            "train.jsonl": jsonl(
                {"story_id": "s-1", "obs1": "Ann ran.", "obs2": "She fell.", "hyp1": "Ice.", "hyp2": "Tea."},
                {"story_id": "s-2", "obs1": "Bo ate.", "obs2": "He slept.", "hyp1": "Sun.", "hyp2": "Soup."},
            ),
            "train-labels.lst": "1\n2\n",
            "dev.jsonl": jsonl(
                {"story_id": "s-3", "obs1": "Cy sat.", "obs2": "He left.", "hyp1": "Rain.", "hyp2": "Fun."}
            ),
            "dev-labels.lst": "1",
        },
        train=[
            "observation 1: Ann ran. [SEP] observation 2: She fell. "
            "[SEP] hypothesis 1: Ice. [SEP] hypothesis 2: Tea.\thypothesis 1",
            "observation 1: Bo ate. [SEP] observation 2: He slept. "
            "[SEP] hypothesis 1: Sun. [SEP] hypothesis 2: Soup.\thypothesis 2",
        ],
        validation=[
            "observation 1: Cy sat. [SEP] observation 2: He left. "
            "[SEP] hypothesis 1: Rain. [SEP] hypothesis 2: Fun.\thypothesis 1"
        ],
    ),
    "piqa": case(
        {
            "physicaliqa-train-dev/train.jsonl": jsonl(
                {"goal": "Cool tea", "sol1": "Add ice", "sol2": "Add fire"},
                {"goal": "Dry hair", "sol1": "Use water", "sol2": "Use a towel"},
            ),
            "physicaliqa-train-dev/train-labels.lst": "0\n1\n",
            "physicaliqa-train-dev/dev.jsonl": jsonl(
                {"goal": "Cut", "sol1": "Spoon", "sol2": "Knife", "id": "x"}
            ),
            "physicaliqa-train-dev/dev-labels.lst": "1\n",
        },
        train=[
            "goal: Cool tea [SEP] solution 1Add ice [SEP] solution 2Add fire\t0",
            "goal: Dry hair [SEP] solution 1Use water [SEP] solution 2Use a towel\t1",
        ],
        validation=["goal: Cut [SEP] solution 1Spoon [SEP] solution 2Knife\t1"],
    ),
    "scitail": case(
        {
            "SciTailV1.1/snli_format/scitail_1.0_train.txt": jsonl(
                {"gold_label": "neutral", "sentence1": "Tea is hot.", "sentence2": "Ice is cold."},
                {"gold_label": "entailment", "sentence1": "Ice is water.", "sentence2": "Ice is wet."},
            ),
            "SciTailV1.1/snli_format/scitail_1.0_dev.txt": jsonl(
                {"gold_label": "neutral", "sentence1": "Sand is dry.", "sentence2": "Sand is old."}
            ),
        },
        train=[
            "sentence 1: Tea is hot. [SEP] sentence 2: Ice is cold.\tneutral",
            "sentence 1: Ice is water. [SEP] sentence 2: Ice is wet.\tentailment",
        ],
        validation=["sentence 1: Sand is dry. [SEP] sentence 2: Sand is old.\tneutral"],
    ),
    "sick": case(
        {
            "SICK.txt": "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score"
            "\tentailment_AB\t"
            "entailment_BA\tsentence_A_original\tsentence_B_original\tsentence_A_dataset\tsentence_B_dataset\t"
            "SemEval_set\r\n"
            "1\tA cat sits\tA cat is sitting \tENTAILMENT\t5.0\tA_1\tB_1\ta\tb\tFLICKR\tFLICKR\tTRAIN\r\n"
            "2\tA dog runs\tNo dog runs\tCONTRADICTION\t3.1\tA_2\tB_2\ta\tb\tFLICKR\tFLICKR\tTRIAL\r\n"
            "3\tA man sings\tA man reads\tNEUTRAL\t2.2\tA_3\tB_3\ta\tb\tFLICKR\tFLICKR\tTEST\r\n"
            '4\tA "boy" eats\tA girl eats\tNEUTRAL\t3.0\tA_4\tB_4\ta\tb\tSEMEVAL\tSEMEVAL\tTRAIN\r\n'
        },
        train=[
            "sentence 1: A cat sits [SEP] sentence 2: A cat is sitting\tentailment",
            'sentence 1: A "boy" eats [SEP] sentence 2: A girl eats\tneutral',
        ],
        validation=["sentence 1: A dog runs [SEP] sentence 2: No dog runs\tcontradiction"],
    ),
    "boolq": case(
        {
            "train.jsonl": jsonl(
                {"question": "is ice cold", "title": "Ice", "answer": True, "passage": "Ice is cold."},
                {"question": "is tea dry", "title": "Tea", "answer": False, "passage": "Tea is wet."},
            ),
            "dev.jsonl": jsonl(
                {"question": "is ulm old", "title": "Ulm", "answer": True, "passage": "It is."}
            ),
        },
        train=[
            "question: is ice cold [SEP] context: Ice is cold.\tyes",
            "question: is tea dry [SEP] context: Tea is wet.\tno",
        ],
        validation=["question: is ulm old [SEP] context: It is.\tyes"],
    ),
    "circa": case(
        {
            "circa-data.tsv": "id\tcontext\tquestion-X\tcanquestion-X\tanswer-Y\tjudgements\t"
            "goldstandard1\tgoldstandard2\n"
            "0\tX wants to eat.\tHungry?\tI am hungry.\tI ate.\tNo#No\tNo\tNo\n"
            '1\tX wants to eat.\tPizza?\tI like pizza.\t"Thin, and ""hot""."\tYes#No\t'
            '"Yes, subject to some conditions"\t"Yes, subject to some conditions"\n'
            "2\tX wants to eat.\tSoup?\tI like soup.\tPerhaps.\tNo#Yes\tnan\tnan\n"
        },
        train=[
            "context: X wants to eat. [SEP] question X: Hungry? [SEP] answer Y: I ate.\tNo",
            'context: X wants to eat. [SEP] question X: Pizza? [SEP] answer Y: Thin, and "hot".\t'
            "Yes, subject to some conditions",
        ],
    ),
    "google_wellformed_query": case(
        {
            "train.tsv": "Who is Ann ?\t1.0\nAnn who ?\t0.2\nHow old ?\t0.4\nWhen tea ?\t0.6\n",
            "dev.tsv": 'What is " tea " ?\t0.8\n',
        },
        train=[
            "Who is Ann ?\twell-formed",
            "Ann who ?\tnot well-formed",
            "When tea ?\twell-formed",  # 0.6 is more than 0.6 as float32
        ],
        validation=['What is " tea " ?\twell-formed'],
    ),
    "mc_taco": case(
        {
            "dev_3783.tsv": "Ann slept.\tHow long?\t8 hours\tyes\tEvent Duration\n"
            '"""Go"", Bo said."\tHow long?\t9 years\tno\tEvent Duration\n'
        },
        validation=[
            "Ann slept. [SEP] How long? [SEP] 8 hours\tyes",
            '"Go", Bo said. [SEP] How long? [SEP] 9 years\tno',
        ],
    ),
    "trec": case(
        {
            "train_5500.label": b"DESC:manner How does it rain ?\nENTY:cremat What is the caf\xf0 song ?\n"
            b"NUM:date When ?\n"
        },
        train=["How does it rain ?\tDESC", "What is the caf  song ?\tENTY", "When ?\tNUM"],
    ),
    "trec-finegrained": case(
        {"train_5500.label": "DESC:manner How does it rain ?\nLOC:city Where is Ulm ?\n"},
        train=["How does it rain ?\tmanner", "Where is Ulm ?\tcity"],
    ),
}
