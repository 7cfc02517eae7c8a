"""Features of tasks as numbers: from the ontology, from a file, for the 160 tasks and the embedded gym."""

import numpy as np
import pytest

from dataloader.errors import InputError
from dataloader.labels import read_labels
from dataloader.ontology import Ontology
from routing_moe.analysis.features import SHIPPED_FEATURES, features_of
from task.skill_gym.generate import generate

TREE = {"words": {"meaning": ["hot", "big"], "form": ["cats"]}, "numbers": {"all": ["one"]}}
TASKS = ("hot", "big", "cats", "one", "unheard")


def written(tmp_path, text):
    (tmp_path / "skills.csv").write_text(text)
    return tmp_path / "skills.csv"


def test_columns_become_numbers(tmp_path):
    path = written(tmp_path, "task,skill:spell,length,shape\nhot,1,3,round\nbig,0,,7\none,1,2.5,round\n")
    features = features_of(TASKS, Ontology(TREE), file=path)
    known = {name: features.column(name).tolist() for name in features.names}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert known["category:words"] == [1, 1, 1, 0, nan]
    assert known["subcategory:words/form"] == [0, 0, 1, 0, nan]
    assert known["skill:spell"] == [1, 0, nan, 1, nan]
    assert known["length"] == [3, nan, nan, 2.5, nan]
    assert known["shape:round"] == [1, 0, nan, 1, nan]  # a column with texts: one feature for each
    assert known["shape:7"] == [0, 1, nan, 0, nan]
    assert features.is_binary("skill:spell")
    assert not features.is_binary("length")
    assert list(features.kinds) == ["category", "subcategory", "skill", "length", "shape"]


def test_the_features_of_a_gym_take_precedence_over_the_shipped_ones(tmp_path):
    written(tmp_path, "task,skill:own\nboolq,1\nrace-high,0\n")
    ontology = Ontology.load()
    assert "skill:own" in features_of(["boolq", "race-high"], ontology, tmp_path).names
    assert "format:classification" in features_of(["boolq", "race-high"], ontology, tmp_path / "no").names
    assert not [n for n in features_of(TASKS, Ontology(TREE)).names if not n.startswith(("cat", "subcat"))]


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("task,skill:a\nhat,1\n", "none of the tasks, such as hot; did you mean 'hat'"),
        ("task,skill:a\nhot,2\n", "line 2, column skill:a: '2' is neither 0 nor 1"),
        ("tusk,skill:a\nhot,1\n", "no column task; did you mean 'tusk'"),
        ("task,length\nhot,1\nbig,2\ncats,n/a\n", "column length: 'n/a' (task cats) among numbers"),
        ("task,length\nhot,1\nbig,2\ncats,inf\n", "column length: 'inf' (task cats) among numbers"),
        ("task,category\nhot,1\n", "column category: this name is used by the ontology"),
    ],
)
def test_an_error_in_a_file_names_its_line_or_column(tmp_path, text, output):
    with pytest.raises(InputError) as caught:
        features_of(TASKS, Ontology(TREE), file=written(tmp_path, text))
    assert output in str(caught.value)
    assert str(tmp_path / "skills.csv") in str(caught.value)


def test_all_crossfit_tasks_have_features():
    ontology = Ontology.load()
    features = features_of(ontology.tasks, ontology)
    assert np.isfinite(features.values_NF).all()
    own = [name for name in features.names if name.startswith(("format:", "input:", "domain:", "skill:"))]
    assert len(own) == 32
    for kind in ("format", "input"):
        assert (features.values_NF[:, features.kinds[kind]].sum(axis=1) == 1).all()
    for name in own:
        assert features.is_binary(name)
        assert 1 <= features.column(name).sum() < 160, name
    labels = read_labels(SHIPPED_FEATURES)
    assert labels["format"]["boolq"] == "classification"
    assert labels["format"]["squad-with_context"] == "extractive"
    assert labels["format"]["freebase_qa"] == "closed_book"
    assert labels["skill"]["glue-wnli"] == "commonsense+coreference+inference"


def test_the_features_of_the_embedded_gym_are_its_true_skills(tmp_path):
    generate(tmp_path)
    ontology = Ontology.load(tmp_path / "ontology.json")
    features = features_of(ontology.tasks, ontology, tmp_path)
    assert np.isfinite(features.values_NF).all()
    row = features.tasks.index("sentiment-negation-shop-labels")
    assert features.column("skill:negation")[row] == 1
    for kind in ("format", "vocabulary"):
        assert (features.values_NF[:, features.kinds[kind]].sum(axis=1) == 1).all()
