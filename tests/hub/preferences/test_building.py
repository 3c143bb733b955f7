"""The folder of pairs: against the plain definition of every column, killed at any stage, and read again."""

import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from preference_pairs import building, collecting, weighing
from preference_pairs.building import build
from preference_pairs.weighing import Weighing

from hf_synth.preferences import Source, read_preferences
from hf_synth.preferences.duplicates import NearDuplicates
from hf_synth.preferences.prompts import normalise
from hf_synth.sampling import effective_sample_size, embed_texts, knn_density, prompt_text, rarity_weights
from hf_synth.training.arguments import DataArguments
from hf_synth.training.data import preference_split, prompt_split

WEIGHING = Weighing(density_k=4)


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Sources are read in this process, but where a test says otherwise: others take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting.os, "cpu_count", lambda: 1)
        yield


def sources(places, *names):
    return [Source(places[name], src=name) for name in names or places]


def table(folder, name):
    """The rows of a config, whatever the number of its shards."""
    return [row for path in sorted((folder / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(places, tmp_path_factory):
    """All three sources, built once."""
    folder = tmp_path_factory.mktemp("built")
    build(sources(places), folder, WEIGHING, jsonl=True)
    return folder


@pytest.fixture(scope="module")
def counts(folder):
    return json.loads((folder / "counts.json").read_text())


# Every column, against the plain definition


@pytest.fixture(scope="module")
def plain(places):
    """Pairs and prompts by loops over all rows in memory."""
    rows = [row for name, place in places.items() for row in read_preferences(place, src=name).dataset]
    pairs = [row for number, row in enumerate(rows) if row["id"] not in {before["id"] for before in rows[:number]}]
    first = {row["prompt_id"]: row for row in reversed(pairs)}
    prompts = [row for row in pairs if first[row["prompt_id"]] is row]
    texts = [prompt_text(row["prompt"]) for row in prompts]
    repeats = [prompts[row]["prompt_id"] for row in NearDuplicates().add(texts)]
    kept = {row["prompt_id"] for row, other in zip(prompts, repeats, strict=True) if row["prompt_id"] == other}
    return {
        "pairs": [row for row in pairs if row["prompt_id"] in kept],
        "prompts": [row for row in prompts if row["prompt_id"] in kept],
        "all": [(row["prompt_id"], other, text) for row, other, text in zip(prompts, repeats, texts, strict=True)],
    }


def test_pairs(folder, plain):
    result = table(folder, "pairs")
    columns = ("id", "prompt_id", "src", "prompt", "chosen", "rejected")
    assert [{name: row[name] for name in columns} for row in result] == plain["pairs"]
    vectors = embed_texts([prompt_text(row["prompt"]) for row in result])
    density = knn_density(vectors, k=4)  # a prompt of two pairs is two points in one place
    np.testing.assert_allclose([row["density"] for row in result], density, rtol=1e-6)
    weights = rarity_weights(density)
    np.testing.assert_allclose([row["sampling_weight"] for row in result], weights, rtol=1e-6)


def test_prompts(folder, plain):
    result = table(folder, "prompts")
    for name in ("prompt", "prompt_id", "src"):
        assert [row[name] for row in result] == [row[name] for row in plain["prompts"]]
    each = Counter(row["prompt_id"] for row in plain["pairs"])
    assert [row["count"] for row in result] == [each[row["prompt_id"]] for row in result]
    density = knn_density(embed_texts([prompt_text(row["prompt"]) for row in result]), k=4)
    np.testing.assert_allclose([row["density"] for row in result], density, rtol=1e-6)
    np.testing.assert_allclose([row["sampling_weight"] for row in result], rarity_weights(density), rtol=1e-6)


def test_ids_lead_to_prompts_also_of_near_duplicates(folder, plain):
    result = table(folder, "id_to_prompt")
    assert [(row["prompt_id"], row["repeats"], row["text"]) for row in result] == plain["all"]
    texts = {row["prompt_id"]: row["text"] for row in result}
    repeating = [row for row in result if row["repeats"] != row["prompt_id"]]
    assert len(repeating) == 2
    for row in repeating:
        assert normalise(row["text"]).lower()[:30] == normalise(texts[row["repeats"]]).lower()[:30]


def test_code_of_a_question_is_kept(folder):
    asked = next(row for row in table(folder, "pairs") if row["src"] == "se")["prompt"][0]["content"]
    assert asked.endswith("\n\n```\nif x < 1:\n    y()\n```")


def test_json_lines_are_the_same_rows(folder):
    for name in ("pairs", "prompts"):
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line) for line in lines] == table(folder, name)


# The account of what was left out


def test_counts(counts):
    hh, uf, se = (counts["sources"][name] for name in ("hh", "uf", "se"))
    assert hh["rows_dropped"] == {"not JSON": 1, "missing field": 1}
    assert (hh["rows_read"], hh["rows_used"], hh["pairs_made"], hh["pairs_kept"]) == (34, 32, 32, 30)
    assert hh["pairs_dropped"] == {"duplicate pair": 1, "near-duplicate prompt": 1}
    assert (hh["prompts"], hh["prompts_kept"]) == (30, 29)
    assert uf["rows_dropped"] == {"scores are equal": 1}
    assert uf["pairs_dropped"] == {"near-duplicate prompt": 1}
    assert (uf["pairs_kept"], uf["prompts"], uf["prompts_kept"]) == (18, 18, 17), "one prompt was hh's already"
    assert (se["rows_read"], se["pairs_made"], se["pairs_kept"], se["prompts_kept"]) == (15, 30, 30, 15)


def test_what_was_read_is_kept_or_in_the_file_of_dropped_rows(folder, counts):
    lines = [json.loads(line) for line in (folder / "dropped_rows.jsonl").read_text().splitlines()]
    assert all(set(line) - {"repeats", "similarity"} == {"src", "file", "line", "reason", "row"} for line in lines)
    result = Counter((line["src"], line["reason"]) for line in lines)
    for name, of in counts["sources"].items():
        assert of["rows_read"] == of["rows_used"] + sum(of["rows_dropped"].values())
        assert of["pairs_made"] == of["pairs_kept"] + sum(of["pairs_dropped"].values())
        reasons = of["rows_dropped"] | of["pairs_dropped"]
        assert {reason: number for (src, reason), number in result.items() if src == name} == reasons
    assert sum(of["pairs_kept"] for of in counts["sources"].values()) == len(table(folder, "pairs"))
    near = [line for line in lines if line["reason"] == "near-duplicate prompt"]
    assert all(0.8 <= line["similarity"] <= 1 for line in near)
    assert [(line["file"], line["line"]) for line in near] == [("hh.jsonl", 32), ("uf.parquet", 20)]
    assert {line["repeats"] for line in near} <= {row["prompt_id"] for row in table(folder, "prompts")}


def test_what_is_always_reported(folder, counts):
    for name, facts in counts["weights"].items():
        weights = [row["sampling_weight"] for row in table(folder, name)]
        assert facts["rows"] == len(weights)
        assert facts["effective_sample_size"] == pytest.approx(effective_sample_size(weights))
        assert (facts["smallest"], facts["largest"]) == (min(weights), max(weights))
        assert facts["median"] == pytest.approx(np.median(weights))
        pairs = Counter(row["prompt_id"] for row in table(folder, "pairs"))
        assert facts["most_pairs"] == max(pairs.values()) > 1
        several = [row["sampling_weight"] for row in table(folder, name) if pairs[row["prompt_id"]] > 1]
        assert facts["repeated_share"] == pytest.approx(sum(several) / sum(weights))
    assert counts["density"]["recall"] == 1.0
    assert 0 < counts["density"]["dimension"] < 384
    assert counts["density"]["k"] == 4


# Choices


def test_near_duplicates_may_stay(places, tmp_path):
    built = build(sources(places), tmp_path, Weighing(near_duplicates="keep", density_k=4), jsonl=False)
    assert built["sources"]["hh"]["pairs_dropped"] == {"duplicate pair": 1}
    assert built["weights"]["prompts"]["rows"] == 63
    assert sum(row["repeats"] != row["prompt_id"] for row in table(tmp_path, "id_to_prompt")) == 2, "but are marked"


def test_strength_0_weighs_all_alike(places, tmp_path):
    build(sources(places, "hh"), tmp_path, Weighing(sampling_strength=0.0, density_k=4), jsonl=False)
    assert {row["sampling_weight"] for row in table(tmp_path, "pairs")} == {1.0}


def test_density_may_be_smoothed(places, tmp_path):
    spread = []
    for rounds in (0, 3):
        build(
            sources(places, "hh"), tmp_path / str(rounds), Weighing(density_k=4, density_smoothing=rounds), jsonl=False
        )
        rows = table(tmp_path / str(rounds), "prompts")
        density = [row["density"] for row in rows]
        vectors = embed_texts([prompt_text(row["prompt"]) for row in rows])
        np.testing.assert_allclose(density, knn_density(vectors, k=4, smoothing=rounds), rtol=1e-6)
        spread.append(np.std(np.log(density)))
    assert spread[1] < spread[0]


def test_few_prompts(places, tmp_path):
    one = [Source(places["hh"], src="hh", max_rows=1)]
    build(one, tmp_path / "one", WEIGHING, jsonl=False)
    assert [row["sampling_weight"] for row in table(tmp_path / "one", "prompts")] == [1.0]
    with pytest.raises(ValueError, match="density_k: got 4 with 4 distinct prompts; lower it below that"):
        build([Source(places["hh"], src="hh", max_rows=4)], tmp_path / "four", WEIGHING, jsonl=False)


def test_a_source_without_a_usable_row_says_what_was_wrong(places, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"chosen": 1, "rejected": 2}\n' * 3 + "broken\n")
    given = [*sources(places, "hh"), Source(tmp_path / "bad.jsonl", src="bad")]
    with pytest.raises(ValueError, match=r"bad: none of 4 rows is usable \(\{'wrong type': 3, 'not JSON': 1\}\)"):
        build(given, tmp_path / "made", WEIGHING, jsonl=False)


def test_two_sources_of_one_label(places, tmp_path):
    with pytest.raises(ValueError, match="sources: got 'hh' twice; name one of them"):
        build([*sources(places, "hh"), *sources(places, "hh")], tmp_path, WEIGHING, jsonl=False)


# Files


def test_shards_hold_the_same_rows(places, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "SHARD_ROWS", 7)
    build(sources(places), tmp_path, WEIGHING, jsonl=False)
    for name in ("pairs", "prompts", "id_to_prompt"):
        rows = table(folder, name)
        assert table(tmp_path, name) == rows
        shards = sorted(path.name for path in (tmp_path / name).glob("*.parquet"))
        assert len(shards) == -(-len(rows) // 7)
        sizes = [pq.read_metadata(tmp_path / name / shard).num_rows for shard in shards]
        assert set(sizes[:-1]) == {7}


@pytest.mark.processes
def test_any_number_of_processes_writes_the_same_files(places, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(weighing, "_APART_FROM", 1)
    build(sources(places), tmp_path, WEIGHING, jsonl=True)
    assert files(tmp_path) == files(folder)


@pytest.mark.parametrize("stage", ["repeated", "prompt_density", "_count", "write_all", "_move", "write_text"])
def test_killed_at_any_stage_it_starts_over(places, folder, tmp_path, monkeypatch, stage):
    done = getattr(building, stage)

    def killed(*arguments, **options):
        done(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            build(sources(places), tmp_path, WEIGHING, jsonl=True)
    build(sources(places), tmp_path, WEIGHING, jsonl=True)
    assert files(tmp_path) == files(folder)


@pytest.mark.parametrize("name", ["prompts/mine.txt", "pairs.jsonl", "counts.json", ".building/note"])
def test_files_of_others_are_not_replaced(places, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(ValueError, match=f"has {name.partition('/')[0]}, not made here"):
        build(sources(places, "hh"), tmp_path, WEIGHING, jsonl=True)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


def test_a_finished_folder_is_left_as_it_is(places, folder, monkeypatch):
    before = files(folder)
    monkeypatch.setattr(building, "collect", lambda *arguments: pytest.fail("read the sources again"))
    assert build(sources(places), folder, WEIGHING, jsonl=True) == json.loads((folder / "counts.json").read_text())
    assert files(folder) == before


def test_other_arguments_and_other_data_are_refused(places, folder, tmp_path):
    other = Weighing(density_k=5, max_ratio=10.0)
    with pytest.raises(ValueError, match=r"holds pairs that were made of other arguments \(density_k, max_ratio\)"):
        build(sources(places), folder, other, jsonl=True)
    copied = {name: shutil.copy(place, tmp_path) for name, place in places.items()}
    made = tmp_path / "made"
    build(sources(copied), made, WEIGHING, jsonl=False)
    with open(copied["hh"], "a") as lines:
        lines.write("\n")
    with pytest.raises(ValueError, match=r"other arguments \(sources\)"):
        build(sources(copied), made, WEIGHING, jsonl=False)


# Recipes


def test_recipes_read_the_folder(folder, tmp_path):
    of_another = {"preferences_dir": "harmless-base", "preferences_split": "test"}  # as a config for hh-rlhf has it
    data = DataArguments(preferences=str(folder), test_share=0.3, **of_another)
    training, held_out = preference_split(data, tmp_path)
    assert sorted([*training["id"], *held_out["id"]]) == sorted(row["id"] for row in table(folder, "pairs"))
    prompts, rest, _ = prompt_split(data, tmp_path, 1000)
    both = [(row["src"], row["prompt"][0]["content"]) for row in [*prompts, *rest]]
    assert sorted(both) == sorted((row["src"], row["prompt"][0]["content"]) for row in table(folder, "prompts"))
    assert {src for src, _ in both} == {"hh", "uf", "se"}, "what weights by source need"
