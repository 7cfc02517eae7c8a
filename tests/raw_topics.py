"""Invented raw files of the tasks about sentiment, topics and pairs of texts, and their lines."""

from raw_mirror import case, jsonl

ONESTOP = "Texts-SeparatedByReadingLevel"

TOPICS = {
    "discovery": case(
        {
            "discovery/discovery/train.tsv": "sentence1\tsentence2\tlabel\tidx\n"
            'It rained .\t"We" stayed in .\tso,\t0\nAnn ran .\tBo sat .\t[no-conn]\t1\n',
            "discovery/discovery/dev.tsv": "sentence1\tsentence2\tlabel\tidx\n"
            "Ann sang .\tBo left .\t173\t0\n",
        },
        train=[
            'sentence 1: It rained . [SEP] sentence 2: "We" stayed in .\tso,',
            "sentence 1: Ann ran . [SEP] sentence 2: Bo sat .\t[no-conn]",
        ],
        validation=["sentence 1: Ann sang . [SEP] sentence 2: Bo left .\tyet,"],
    ),
    "medical_questions_pairs": case(
        {
            "mqp.csv": '1,"Is tea, or milk, good?",Can I drink tea?,1\r\n'
            "1,Is tea good?,Why is the sky blue?,0\r\n"
        },
        train=[
            "question 1: Is tea, or milk, good? [SEP] question 2: Can I drink tea?\tDissimilar",
            "question 1: Is tea good? [SEP] question 2: Why is the sky blue?\tSimilar",
        ],
    ),
    "mocha": case(
        {
            "mocha/train.json": {
                "cosmosqa": {
                    "a1": {
                        **{"question": "Who?", "context": "Ann ran.", "reference": "Ann", "candidate": "Bo"},
                        **{"score": 1.0, "metadata": {"scores": [1, 1]}},
                    },
                    "a2": {
                        **{"question": "Who?", "context": "Ann ran.", "reference": "Ann", "candidate": "she"},
                        **{"score": 4.5, "metadata": {"scores": [4, 5]}},
                    },
                },
                "drop": {
                    "a3": {
                        **{"question": "Why?", "context": "Bo ran.", "reference": "fun", "candidate": "joy"},
                        **{"score": 4.999999999, "metadata": {"scores": [5]}},
                    }
                },
            },
            "mocha/dev.json": {
                "quoref": {
                    "b1": {
                        **{
                            "question": "When?",
                            "context": "In May.",
                            "reference": "May",
                            "candidate": "June",
                        },
                        **{"score": 2.0, "metadata": {"scores": [2]}},
                    }
                }
            },
        },
        train=[
            "question: Who? [SEP] context: Ann ran. [SEP] reference: Ann [SEP] candidateBo\t1",
            "question: Why? [SEP] context: Bo ran. [SEP] reference: fun [SEP] candidatejoy\t5",
        ],
        validation=["question: When? [SEP] context: In May. [SEP] reference: May [SEP] candidateJune\t2"],
    ),
    "paws": case(
        {
            "final/train.tsv": "id\tsentence1\tsentence2\tlabel\n"
            "1\tAnn saw Bo .\tBo saw Ann .\t0\n"
            '2\t"The ""red"" cat ."\tThe cat is red .\t1\n',
            "final/dev.tsv": "id\tsentence1\tsentence2\tlabel\n1\tIn May he left .\tHe left in May .\t1\n",
        },
        train=[
            "sentence 1: Ann saw Bo . [SEP] sentence 2: Bo saw Ann .\t0",
            'sentence 1: The "red" cat . [SEP] sentence 2: The cat is red .\t1',
        ],
        validation=["sentence 1: In May he left . [SEP] sentence 2: He left in May .\t1"],
    ),
    "wiki_auto": case(  # with five columns as in 2021, and with six as later
        {
            "wiki-manual/train.tsv": "aligned\t1_2-0-0-0\t1_2-1-0-0\tUlm is old .\tUlm is an old city .\n"
            'notAligned\t1_2-0-0-1\t1_2-1-0-0\t"Tea" is hot .\tUlm is an old city .\n',
            "wiki-manual/dev.tsv": "partialAligned\t3_4-0-0-0\t3_4-1-0-0\tIt is old .\tIt is old and big ."
            "\t0.2\n"
            "notAligned\t3_4-0-0-0\t3_4-1-0-1\tIt is old .\tAnn ran .\t0.0\n"
            "aligned\t3_4-0-0-1\t3_4-1-0-1\tShe ran .\tAnn ran .\t0.5\n",
        },
        train=[
            "normal sentence: Ulm is an old city . [SEP] simple_sentence: Ulm is old .\taligned",
            'normal sentence: Ulm is an old city . [SEP] simple_sentence: "Tea" is hot .\tnotAligned',
        ],
        dev=[
            "normal sentence: It is old and big . [SEP] simple_sentence: It is old .\taligned",
            "normal sentence: Ann ran . [SEP] simple_sentence: It is old .\tnotAligned",
            "normal sentence: Ann ran . [SEP] simple_sentence: She ran .\taligned",
        ],
    ),
    "wiki_qa": case(
        {
            f"WikiQACorpus/WikiQA-{split}.tsv": "QuestionID\tQuestion\tDocumentID\tDocumentTitle"
            "\tSentenceID\t"
            f"Sentence\tLabel\nQ1\twhere is ulm\tD1\tUlm\tD1-0\t{sentence}\t{label}\n"
            for split, sentence, label in (("train", '"Ulm" is a city .', 0), ("dev", "It is here .", 1))
        },
        train=['question: where is ulm [SEP] answer: "Ulm" is a city .\tfalse'],
        validation=["question: where is ulm [SEP] answer: It is here .\ttrue"],
    ),
    "app_reviews": case(
        {
            "reviews.csv": '"","package_name","review","date","star"\n'
            '"1","com.tea","It ""works"", mostly","May 1 2016",4\n'
            '"2", "com.tea", "Bad","May 2 2016",1\n'
        },
        train=['review: It "works", mostly\t4', "review: Bad\t1"],
    ),
    "emotion": case(
        {
            "train.txt": "i feel calm;joy\ni am low;sadness\n",
            "val.txt": "i am so cross;anger\ni did not see it;surprise\ni run;fear\ni hug;love\n",
        },
        train=["i feel calm\tjoy", "i am low\tsadness"],
        validation=["i am so cross\tanger", "i did not see it\tsurprise", "i run\tfear", "i hug\tlove"],
    ),
    "financial_phrasebank": case(
        {
            (
                "FinancialPhraseBank-v1.0/Sentences_AllAgree.txt",
                "FinancialPhraseBank/Sentences_AllAgree.txt",
            ): "Sales of Café Öl rose .@positive\r\nMail a@tea.fi .@neutral\r\nIt lost .@negative\r\n".encode(
                "iso-8859-1"
            )
        },
        train=[
            "Sales of Café Öl rose .\tpositive",
            "Mail a@tea.fi .\tneutral",
            "It lost .\tnegative",
        ],
    ),
    "imdb": case(
        {
            "aclImdb/README": "reviews",
            "aclImdb/train/urls_pos.txt": "http://example.org\n",
            "aclImdb/train/neg/0_1.txt": "No  plot.",
            "aclImdb/train/pos/1_7.txt": "Good.",
            "aclImdb/train/pos/10_8.txt": "Fine!<br /><br />See it.",
            "aclImdb/train/pos/0_9.txt": "Très bien.",
            "aclImdb/train/unsup/0_0.txt": "Not labelled.",
            "aclImdb/test/neg/0_2.txt": "Too long.",
            "aclImdb/test/pos/0_10.txt": "Short.",
        },
        train=[
            "Très bien.\tpositive",
            "Fine!<br /><br />See it.\tpositive",
            "Good.\tpositive",
            "No plot.\tnegative",
        ],
        test=["Short.\tpositive", "Too long.\tnegative"],
    ),
    "poem_sentiment": case(
        {
            "train.tsv": '0\t"with pale light\t1\n1\tit rains,\t0\n2\tthe lonesome day\t-1\n'
            "3\tjoy and tears\t2\n",
            "dev.tsv": "0\tthe sun is up\t1\n",
        },
        train=[
            '"with pale light\tpositive',
            "it rains,\tno_impact",
            "the lonesome day\tnegative",
            "joy and tears\tmixed",
        ],
        validation=["the sun is up\tpositive"],
    ),
    "rotten_tomatoes": case(
        {
            ("rt-polaritydata/rt-polarity.pos", "rt-polarity.pos"): (
                b"the caf\xe9 scene . \none \ntwo \nthree \nfour \nfive \nsix \nseven \n"
            ),
            ("rt-polaritydata/rt-polarity.neg", "rt-polarity.neg"): b"no . \na \nb \nc \nd \ne \nf \ng \n",
        },
        train=[
            *("the café scene .\tpositive", "one\tpositive", "two\tpositive", "three\tpositive"),
            *("four\tpositive", "five\tpositive"),
            *("no .\tnegative", "a\tnegative", "b\tnegative", "c\tnegative"),
            *("d\tnegative", "e\tnegative"),
        ],
        validation=["six\tpositive", "f\tnegative"],
    ),
    "ade_corpus_v2-classification": case(
        {
            "DRUG-AE.rel": "10|Tea-induced sleep.|sleep|12|17|Tea|0|3\n11|Milk and joy.|joy|9|12|Milk|0|4\n",
            "ADE-NEG.txt": '12 NEG "Rain" was | common.\n13 NEG No  effect.\n',
        },
        train=[
            "Tea-induced sleep.\tRelated",
            "Milk and joy.\tRelated",
            '"Rain" was | common.\tNot Related',
            "No  effect.\tNot Related",
        ],
    ),
    "ade_corpus_v2-dosage": case(
        {"DRUG-DOSE.rel": "10|Two cups of tea.|Two cups|0|8|tea|12|15\n"},
        train=["Two cups of tea. [SEP] tea\tTwo cups"],
    ),
    "ade_corpus_v2-effect": case(
        {"DRUG-AE.rel": "10|Tea-induced sleep.|sleep|12|17|Tea|0|3\n"},
        train=["Tea-induced sleep. [SEP] Tea\tsleep"],
    ),
    "ag_news": case(
        {
            "ag_news_csv/train.csv": '"3","Shares rise","Tea is ""up"", milk\\is down."\n'
            '"1", "Vote","Ulm votes."\n',
            "ag_news_csv/test.csv": '"2","Cup","Ann wins."\n"4","Moon","It is far."\n',
        },
        train=['Shares rise Tea is "up", milk\\is down.\tBusiness', "Vote Ulm votes.\tWorld"],
        test=["Cup Ann wins.\tSports", "Moon It is far.\tSci/Tech"],
    ),
    "onestop_english": case(
        {
            f"{ONESTOP}/Adv-Txt/Tea-adv.txt": "\ufeffTea is an infusion.\r\n",
            f"{ONESTOP}/Ele-Txt/Tea-ele.txt": "Tea is hot.\nIt is good.\n",
            f"{ONESTOP}/Ele-Txt/Ice-ele.txt": "Ice is cold. ",
            f"{ONESTOP}/Int-Txt/Tea-int.txt": "Intermediate \nTea is a hot drink.",
            f"{ONESTOP}/Int-Txt/Pub-int.txt": b"not UTF-8: \x93",
        },
        train=[
            "Ice is cold.\telementary",
            "Tea is hot. It is good.\telementary",
            "Tea is a hot drink.\tintermediate",
            "Tea is an infusion.\tadvance",
        ],
    ),
    "scicite": case(
        {
            "scicite/train.jsonl": jsonl(
                {
                    **{"unique_id": "a>b_0", "string": "As in [1],\nwe mix.", "sectionName": "Methods"},
                    **{"citeStart": 6, "citeEnd": 9, "label": "method", "id": "a>b"},
                },
                {
                    **{"unique_id": "a>b_0", "string": "A second row.", "sectionName": "Methods"},
                    **{"citeStart": 0, "citeEnd": 1, "label": "result", "id": "a>b"},
                },
                {
                    **{"unique_id": "a>c_1", "string": "Ann says so.", "sectionName": None},
                    **{"citeStart": 0.0, "citeEnd": float("nan"), "label": "background", "id": "a>c"},
                },
            ),
            "scicite/dev.jsonl": jsonl(
                {
                    **{"unique_id": "a>d_0", "string": "It fits (Bo 1999).", "sectionName": "3. Results"},
                    **{"citeStart": 9, "citeEnd": 16, "label": "result", "id": "a>d"},
                }
            ),
        },
        train=[
            "[1] [SEP] As in [1], we mix. [SEP] Methods\tmethod",
            "Ann says so [SEP] Ann says so. [SEP] None\tbackground",
        ],
        validation=["Bo 1999 [SEP] It fits (Bo 1999). [SEP] 3. Results\tresult"],
    ),
    "sms_spam": case(
        {
            "SMSSpamCollection": 'ham\tOk "lar"...\nspam\tFREE tea,\tcall now \n',
            "f3e73e1e74e6330b62d1ee1983bba2a063184c26/SMSSpamCollection": "Label\tSMS\n"
            'ham\tOk "lar"...\nspam\tFREE tea,\tcall now \n',
        },
        train=['Ok "lar"...\tham', "FREE tea,\tcall now\tspam"],
    ),
    "tweet_eval-irony": case(
        {
            "irony/train_text.txt": "so   nice \n \n@user 😍\u2028yes \n",
            "irony/train_labels.txt": "1\n1\n0\n",
            "irony/val_text.txt": "tea\r\n",
            "irony/val_labels.txt": "0\n",
        },
        train=["so nice\tirony", "@user 😍 yes\tnon-irony"],
        validation=["tea\tnon-irony"],
    ),
    "tweet_eval-stance_climate": case(
        {
            "stance/climate/train_text.txt": "it is hot\nhm\nno way\n",
            "stance/climate/train_labels.txt": "2\n0\n1\n",
            "stance/climate/val_text.txt": "yes\n",
            "stance/climate/val_labels.txt": "2",
        },
        train=["it is hot\tfavor", "hm\tnone", "no way\tagainst"],
        validation=["yes\tfavor"],
    ),
}
