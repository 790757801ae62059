"""Label files of other tools: the right label for each class, or one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_cam.errors import WeightsError
from stream_cam.model.labels import labels_of, read_labels

LABELS = ("ant", "bee", "wasp")


def read(tmp_path: Path, name: str, text: str, n_classes: int = 3) -> tuple[str, ...]:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_labels(tmp_path / name, n_classes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # Python literals
        ("a.txt", "{0: 'ant',\n 1: 'bee',\n 2: 'wasp'}"),
        ("a.txt", "{'wasp': 2, 'ant': 0, 'bee': 1}"),
        ("a.txt", "['ant', 'bee', 'wasp']\n"),
        ("a.txt", "('ant', 'bee', 'wasp')"),
        ("a.json", "{2: 'wasp', 1: 'bee', 0: 'ant'}"),
        # JSON
        ("a.json", '{"ant": 0, "wasp": 2, "bee": 1}'),
        ("a.json", '{"architectures": ["X"], "id2label": {"0": "ant", "1": "bee", "2": "wasp"}}'),
        ("a.json", '{"id2label": {"2": "wasp", "0": "ant", "1": "bee"}, "label2id": {"a": 0}}'),
        ("a.json", '{"class_to_idx": {"bee": 1, "ant": 0, "wasp": 2}}'),
        ("a.json", '{"names": ["ant", "bee", "wasp"], "nc": 3}'),
        ("a.json", '{"names": {"0": "ant", "1": "bee", "2": "wasp"}}'),
        # YAML
        ("data.yaml", "nc: 3\nnames: [ant, bee, wasp]\n"),
        ("data.yml", "path: x\nnames:\n  0: ant\n  1: bee\n  2: wasp\n"),
        ("data.yaml", "names:\n- ant\n- bee\n- wasp\n"),
        ("a.yaml", "- ant\n- bee\n- wasp\n"),
        ("a.yaml", "0: ant\n1: bee\n2: wasp\n"),
        ("a.txt", "names:\n- ant\n- bee\n- wasp\n"),
        ("a.txt", "- ant\n- bee\n- wasp\n"),
        ("a.txt", "nc: 3\nnames: [ant, bee, wasp]\n"),
        # Numbered lines
        ("a.txt", "0 ant\n1 bee\n2 wasp\n"),
        ("a.txt", "2 wasp\n0 ant\n1 bee\n"),
        ("a.txt", "0,ant\n1,bee\n2,wasp"),
        ("a.txt", "0: ant\n1: bee\n2: wasp"),
        ("a.txt", "0:'ant',\n1:'bee',\n2:'wasp',"),
        ("a.txt", "0\tant\n1\tbee\n2\twasp"),
        ("a.txt", "000 ant\n001 bee\n002 wasp\n"),
        ("classInd.txt", "1 ant\n2 bee\n3 wasp\n"),
        ("a.txt", "ant 0\nwasp 2\nbee 1\n"),
        ("a.txt", "ant,0\nbee,1\nwasp,2\n"),
        ("a.txt", "ant: 1\nbee: 2\nwasp: 3\n"),
        # Tables
        ("a.csv", "0,ant\n1,bee\n2,wasp\n"),
        ("a.csv", '2,"wasp"\n0,"ant"\n1,"bee"\n'),
        ("a.csv", "index,label\n2,wasp\n0,ant\n1,bee\n"),
        ("a.csv", "label,index\nwasp,2\nant,0\nbee,1\n"),
        ("a.csv", "class;name;count\n0;ant;9\n1;bee;7\n2;wasp;8\n"),
        ("a.csv", "id,wnid,name\n0,n01,ant\n1,n02,bee\n2,n03,wasp\n"),
        ("a.csv", "name,colour\nant,red\nbee,yellow\nwasp,black\n"),
        ("a.tsv", "x\ty\n0\tant\n1\tbee\n2\twasp\n"),
        ("a.csv", "ant\nbee\nwasp\n"),
        ("a.csv", '"ant"\n"bee"\n"wasp"\n'),
        # One a line
        ("a.names", "ant\nbee\nwasp\n"),
        ("a.txt", "'ant',\n'bee',\n'wasp',\n"),
        ("synset_words.txt", "n01440764 ant\nn01443537 bee\nn01484850 wasp\n"),
    ],
)
def test_each_form_gives_the_same_labels(tmp_path: Path, name: str, text: str) -> None:
    assert read(tmp_path, name, text) == LABELS
    assert read(tmp_path, name, "\ufeff" + text.replace("\n", "\r\n")) == LABELS


@pytest.mark.parametrize(
    "lines",
    [
        ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"),
        ("tench, Tinca tinca", "drake", "corn, ear, cob"),
        ("[background]", "cat", "dog"),
        ("(none)", "(some)", "(all)"),
        ("10 euro", "20 euro", "50 euro"),
        ("0 fingers", "1 fingers", "2 fingers"),
        ("7up", "4 seasons", "cola"),
        ("Boeing 747", "Airbus 320", "Boeing 737"),
        ("class 1", "class 2", "class 3"),
        ("10", "20", "30"),
        ("0", "1", "2"),
        ("café", "naïve", "日本"),
        ('12" record', "5' board", "7' mast"),
        ("a: b", "c", "d: e"),
        ("names of ants", "classes of bees", "labels"),
        ("yes", "no", "null"),
        ("n01440764", "n01443537", "n01484850"),
    ],
)
def test_names_one_a_line_stay_as_they_are(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert read(tmp_path, "a.txt", "\n".join(lines)) == lines
    assert read(tmp_path, "a", "\n\n" + "\r\n".join(lines) + "\n\n") == lines


@pytest.mark.parametrize(
    "text",
    [
        "0,tench, Tinca tinca\n1,goldfish, Carassius\n2,shark",
        '1,"goldfish, Carassius"\n0,"tench, Tinca tinca"\n2,shark',
        "{0: 'tench, Tinca tinca',\n 1: 'goldfish, Carassius',\n 2: 'shark'}",
    ],
)
def test_names_with_commas_behind_numbers(tmp_path: Path, text: str) -> None:
    expected = ("tench, Tinca tinca", "goldfish, Carassius", "shark")
    assert read(tmp_path, "a.txt", text) == expected


def test_words_of_yaml_stay_words(tmp_path: Path) -> None:
    """YAML takes some names for truth values, numbers or nothing."""
    names = ("no", "1e3", "null", "2026-01-01", "0x10")
    assert read(tmp_path, "a.yaml", f"names: [{', '.join(names)}]", 5) == names


def test_folders_that_are_called_by_numbers(tmp_path: Path) -> None:
    """ImageFolder sorts them as text."""
    text = '{"class_to_idx": {"0": 0, "1": 1, "10": 2}}'
    assert read(tmp_path, "a.json", text) == ("0", "1", "10")
    assert read(tmp_path, "a.json", '{"0": "1", "1": "0"}', 2) == ("1", "0")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "0,ant\n1,bee\n3,wasp", "gaps or repetitions"),
        ("a.txt", "0,ant\n0,bee\n1,wasp", "gaps or repetitions"),
        ("a.txt", "1: ant\n2: bee\n4: wasp", "gaps or repetitions"),
        ("a.txt", "0 ant\n2 bee\n5 wasp", "gaps or repetitions"),
        ("a.txt", "ant,0\nbee,1\nwasp,5", "gaps or repetitions"),
        ("a.txt", "2 fingers\n0 fingers\n1 fingers", "not in order"),
        ("a.txt", "{0: 'ant', 1: 'bee', 3: 'wasp'}", "without gaps"),
        ("a.txt", "{0: 'ant', 1: 'bee'", "without gaps"),
        ("a.txt", "{0: print('ant')}", "without gaps"),
        ("a.json", '{"ant": 1, "bee": 2, "wasp": 3}', "without gaps"),
        ("a.json", '{"ant": 0, "bee": 0, "wasp": 1}', "without gaps"),
        ("a.json", '{"names": {"1": "ant", "2": "bee", "3": "wasp"}}', "without gaps"),
        ("a.json", '{"categories": [{"id": 1, "name": "ant"}]}', "without gaps"),
        ("a.json", "[true, false, null]", "without gaps"),
        ("a.yaml", "train: a\nval: b\nnc: 3", "without gaps"),
        ("a.yaml", "names: [a, b", "without gaps"),
        ("a.yaml", "names: ant", "without gaps"),
        ("a.txt", "names: [a, b\nnc: 3\nx: 1", "without gaps"),
        ("a.pbtxt", "item {\n  id: 1\n}", "the form is unknown"),
        ("a.py", "CLASSES = [\n'ant',\n'bee'", "the form is unknown"),
        ("a.txt", '["ant",\n"bee",\n"wasp"', "the form is unknown"),
        ("a.txt", "<html>\n<body>\n</html>", "the form is unknown"),
        ("a.txt", '{"id": 0}\n{"id": 1}\n{"id": 2}', "without gaps"),
        ("a.csv", "ant,red\nbee,yellow\nwasp,black", "which of its columns"),
        ("a.csv", "name,label\nant,a\nbee,b\nwasp,c", "which of its columns"),
        ("a.txt", "0 ant\n1 bee", "2 labels, but the network has 3 classes"),
    ],
)
def test_ambiguous_labels_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        read(tmp_path, name, text)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_label_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python = "{0: __import__('os').mkdir('ran')}"
    yaml = "names: !!python/object/apply:os.mkdir [ran]"
    for name, text in (("a.txt", python), ("a.yaml", yaml)):
        with pytest.raises(WeightsError):
            read(tmp_path, name, text)
    assert not Path("ran").exists()


def test_one_output_is_a_class_and_its_opposite(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "ant\n", 1) == ("not ant", "ant")
    assert read(tmp_path, "a.txt", "bee\nant\n", 1) == ("bee", "ant")
    assert read(tmp_path, "a.json", '{"bee": 0, "ant": 1}', 1) == ("bee", "ant")
    assert labels_of(["0 ant"], 1, "x") == ("not 0 ant", "0 ant")
    with pytest.raises(WeightsError, match="3 labels, but the network has one output"):
        read(tmp_path, "a.txt", "a\nb\nc", 1)
