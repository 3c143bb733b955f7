"""Repositories that several publishers share, or that others wrote into: nothing that is there is lost unasked."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, constants

from hf_synth.hub import cards, command, publish
from hf_synth.hub.publication import Choices, Publication, offered_tasks
from hf_synth.hub.publish import PublishArguments
from hf_synth.reports.read import read_run

ROWS = {"train": 20, "validation": 5, "test": 5}
TASKS = Publication("tasks", "Tasks", "Some tasks.", lambda: offered_tasks("sort", "reverse"))
OTHERS = Publication("others", "Other tasks", "Some others.", lambda: offered_tasks("tivari3"))
SCRIPTS = Path(__file__).parents[2] / "datasets_scripts"
FOREIGN = (
    "---\nlicense: mit\nconfigs:\n- config_name: theirs\n  data_files: a.csv\n  default: true\n---\n\n# My words\n"
)
REPO = "user/repo"


@pytest.fixture
def here(hub, monkeypatch, tmp_path):
    """Be a client of the Hub in this process."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(constants, name, True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr("hf_synth.hub.repository._PAUSES", (0.01,) * 4)
    monkeypatch.chdir(tmp_path)
    return hub


def push(publication: Publication, name: str, folder: str, **options) -> None:
    config = publication.offers()[name](Choices(rows=ROWS))
    command.publish(publication, [config], Path(folder), REPO, **{"private": False, **options})


def push_pairs(folder: str, *flags: str) -> None:
    from preference_pairs.command import main

    rows = [{name: f"{name} {n} " * 9 + str(n) for name in ("prompt", "chosen", "rejected")} for n in range(12)]
    if not Path("pairs.jsonl").exists():
        Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--sources", "mine=pairs.jsonl", "--density_k", "3", "--repo_id", REPO, "--output_dir", folder]
    main([*words, "--near_duplicates", "keep", *flags])


def configs(hub) -> dict[str, bool]:
    """The configs of the card, and whether each is the default; each has its files and its sizes."""
    files = hub.files(REPO, repo_type="dataset")
    data = DatasetCard(files["README.md"].decode()).data.to_dict()
    infos = data["dataset_info"] if isinstance(data["dataset_info"], list) else [data["dataset_info"]]
    result = {config["config_name"]: config.get("default", False) for config in data["configs"]}
    assert len(result) == len(data["configs"])
    assert {info["config_name"] for info in infos} == result.keys() - {"theirs"}
    assert all(any(path.startswith(f"{name}/train-") for path in files) for name in result if name != "theirs")
    return result


@pytest.mark.parametrize("order", [("tasks", "pairs", "others", "tasks"), ("pairs", "tasks", "pairs", "others")])
def test_tasks_and_pairs_in_one_repository(here, order):
    pushes = {
        "tasks": lambda: push(TASKS, "sort-8", "a"),
        "others": lambda: push(OTHERS, "tivari3-short", "b"),
        "pairs": lambda: push_pairs("c"),
    }
    for name in order:
        pushes[name]()
    result, card = configs(here), DatasetCard(here.files(REPO, repo_type="dataset")["README.md"].decode())
    assert result.keys() == {"sort-8", "tivari3-short", "pairs", "prompts", "id_to_prompt"}
    assert [name for name, default in result.items() if default] == ["sort-8" if order[0] == "tasks" else "pairs"]
    assert card.text.count("\n# Tasks, Other tasks\n") == 1
    assert card.text.count("\n# Preference pairs\n") == 1
    assert card.text.count("\n## sort\n") == card.text.count("\n## tivari3\n") == 1
    assert card.data.to_dict()["license"] in (["apache-2.0", "other"], ["other", "apache-2.0"])
    assert {"hf_synth", "synthetic", "preference", "trl"} <= set(card.data.to_dict()["tags"])


def test_what_a_person_adds_to_our_card_stays(here):
    push(TASKS, "sort-8", "a")
    card = here.files(REPO, repo_type="dataset")["README.md"].decode()
    added = "- config_name: theirs\n  data_files: a.csv\ndataset_info:"
    mine = card.replace("---\n\n<!--", "---\n\nBefore.\n\n<!--").replace("dataset_info:", added, 1) + "\nBehind.\n"
    here.put(REPO, {"README.md": mine})
    push(TASKS, "reverse-8", "a")
    text = here.files(REPO, repo_type="dataset")["README.md"].decode()
    assert configs(here) == {"sort-8": True, "reverse-8": False, "theirs": False}
    assert "---\n\nBefore.\n\n<!-- hf_synth: tasks -->" in text
    assert text.endswith("<!-- hf_synth: end of tasks -->\n\nBehind.\n")


@pytest.mark.parametrize("name", ["pairs", "tasks"])
def test_a_new_repository_is_private_where_that_is_asked_for(here, name):
    push_pairs("c", "--private") if name == "pairs" else push(TASKS, "sort-8", "a", private=True)
    kinds = ["dataset"] if name == "pairs" else ["dataset", "model"]
    assert [here.repository(REPO, kind).private for kind in kinds] == [True] * len(kinds)


@pytest.mark.parametrize(
    "card", [FOREIGN, "# No YAML\n", "---\n: : :\n---\n# Broken\n", "---\r\na: 1\r\n---\r\nText\r\n"]
)
def test_a_card_of_others_is_replaced_only_when_asked_for(here, card):
    here.put(REPO, {"README.md": card, "a.csv": "text\n1\n"})
    with pytest.raises(ValueError, match=r"repo_id: user/repo has a README.md .* --overwrite_card"):
        push(TASKS, "sort-8", "a")
    with pytest.raises(SystemExit):
        push_pairs("c")
    assert here.files(REPO, repo_type="dataset")["README.md"].decode() == card
    assert here.files(REPO, repo_type="dataset").keys() == {".gitattributes", "README.md", "a.csv"}
    push_pairs("c", "--overwrite_card")
    assert "# My words" not in here.files(REPO, repo_type="dataset")["README.md"].decode()
    here.put(REPO, {"README.md": card})
    push(TASKS, "sort-8", "a", overwrite_card=True)
    assert configs(here) == ({"theirs": True, "sort-8": False} if card == FOREIGN else {"sort-8": True})
    assert "# My words" not in here.files(REPO, repo_type="dataset")["README.md"].decode()
    assert here.files(REPO, repo_type="dataset")["a.csv"] == b"text\n1\n"


@pytest.mark.parametrize("content", [b"not JSON", b"[1]", b"{}", b"\xff\xfe", b'{"name": "x", "splits": 3}'])
def test_files_of_others_under_our_name_are_left_alone(here, content):
    here.put(REPO, {"theirs/published.json": content, "theirs/train-0.parquet": b"PAR1"})
    push(TASKS, "sort-8", "a")
    assert configs(here) == {"sort-8": True}
    assert here.files(REPO, repo_type="dataset")["theirs/published.json"] == content
    assert here.files(REPO, repo_type="dataset")["theirs/train-0.parquet"] == b"PAR1"


def test_a_model_of_the_same_name_keeps_its_tokenizer(here, capsys):
    here.put(REPO, {"tokenizer.json": "theirs", "README.md": FOREIGN}, repo_type="model")
    push(TASKS, "sort-8", "a")
    assert "user/repo is also a model, whose tokenizer stays" in capsys.readouterr().out
    assert here.files(REPO, repo_type="model")["tokenizer.json"] == b"theirs"
    files = here.files(REPO, repo_type="dataset")
    assert {"tokenizer.json", "sort-8/tokenizer.json"} <= files.keys()
    assert "AutoTokenizer" not in files["README.md"].decode()


@pytest.mark.parametrize("content", ["not JSON", "[1]", "{}", '{"model": {"vocab": {"a": 0}}}'])
def test_a_tokenizer_of_others_beside_the_data_is_refused(here, content):
    here.put(REPO, {"tokenizer.json": content})
    with pytest.raises(ValueError, match=r"got a tokenizer.json that hf_synth did not write"):
        push(TASKS, "sort-8", "a")
    assert not Path("a").exists(), "refused before anything is made"
    assert here.files(REPO, repo_type="dataset")["tokenizer.json"] == content.encode()


def test_a_push_between_the_look_and_the_commit_of_another_is_in_the_card(here, monkeypatch):
    made = []

    def card(*given):
        if not made:
            made.append(1)
            push(OTHERS, "tivari3-short", "b")
        return original(*given)

    original = cards.card
    monkeypatch.setattr(cards, "card", card)
    push(TASKS, "sort-8", "a")
    assert made
    assert configs(here).keys() == {"sort-8", "tivari3-short"}
    assert [request.status for request in here.seen("POST", "/commit/")].count(412) == 1


def test_a_later_push_of_a_model_deletes_what_the_earlier_one_brought(here, finished, capsys):
    arguments = PublishArguments()
    more = {"vocab.json", "model-00001-of-00002.safetensors", "modeling_rope_gpt.py"}
    for name in more:
        (finished / name).write_bytes((finished / "model.safetensors").read_bytes())
    publish._upload(read_run(finished), "user/model", arguments)
    assert here.files("user/model").keys() >= more
    here.put("user/model", {"notes.md": "mine", "merges.txt": "of another"}, repo_type="model")
    for name in more:
        (finished / name).unlink()
    publish._upload(read_run(finished), "user/model", arguments)
    files = here.files("user/model")
    assert not files.keys() & more
    assert {"notes.md", "merges.txt", "model.safetensors", "config.json"} <= files.keys()
    assert capsys.readouterr().out.splitlines()[-1] == "Left there, not uploaded by an earlier run: merges.txt"


def test_a_model_card_of_others_is_replaced_only_when_asked_for(here, finished):
    here.put("user/model", {"README.md": FOREIGN}, repo_type="model")
    run, arguments = read_run(finished), PublishArguments()
    with pytest.raises(ValueError, match=r"hub_model_id: user/model has a README.md .* --overwrite_card"):
        publish._upload(run, "user/model", arguments)
    assert here.files("user/model").keys() == {".gitattributes", "README.md"}
    arguments.overwrite_card = True
    publish._upload(run, "user/model", arguments)
    assert "# model\n" in here.files("user/model")["README.md"].decode()


def test_own_tasks_are_published_by_path_with_any_view(here, tmp_path, capsys):
    import publish as script

    readme = (SCRIPTS.parent / "README.md").read_text("utf-8")
    text = readme[readme.index('"""Reverse') : readme.index("```", readme.index('"""Reverse'))]
    (tmp_path / "my_task.py").write_text(text)
    flags = ["--rows", "train=20", "test=5", "validation=5", "--repo_id", REPO, "--output_dir", "out"]
    for view in ("", "text", "labelled", "prompt_completion", "prompt", "preference"):
        script.main(["my_task.py", *flags, "--view", view])
    script.main(["sort", *flags, "--configs", "sort-8"])
    views = ("text", "labelled", "prompt_completion", "prompt", "preference")
    names = {"my_reverse-8", "sort-8", *(f"my_reverse-8-{view}" for view in views)}
    assert configs(here).keys() == names
    files = here.files(REPO, repo_type="dataset")
    assert b"--dataset_config sort-8 --reward_funcs hf_synth.rewards.verified" in files["README.md"]
    assert b"--dataset_config my_reverse-8" not in files["README.md"], "no one else has that task"
    assert not [path for path, content in files.items() if str(tmp_path).encode() in content]
    (tmp_path / "sort.py").write_text(text.replace('"my_reverse"', '"sort"'))
    (tmp_path / "bad.py").write_text(text.replace("import numpy", "import no_numpy"))
    for file, said in (("sort.py", "got the name 'sort', which an installed task has"), ("bad.py", "bad.py: line 5")):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            script.main([file, *flags])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_a_split_with_fewer_contents_than_rows_has_each_once():
    choices = Choices(rows={"train": 500, "validation": 200, "test": 200})
    config = offered_tasks("tivari")["tivari-default"](choices)
    assert config.splits == {"train": 8, "validation": 1, "test": 1}
    texts = config.table("train", 0, 5)["text"].to_pylist() + config.table("train", 5, 3)["text"].to_pylist()
    assert len(set(texts)) == 8
    free = offered_tasks("tivari")["tivari-default"](Choices(rows={"train": 500}, holdout="none"))
    assert free.splits["train"] == 10
    assert len(set(free.table("train", 0, 10)["text"].to_pylist())) == 10


def teardown_module():
    for name in ("publish", "preference_pairs", "preference_pairs.command"):
        sys.modules.pop(name, None)
