"""The weights that `sampling_by` names, from a dataset's columns; unknown kinds and missing columns are errors."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from hf_synth.sampling import DensityWeightedSampler, effective_sample_size, rarity_weights
from hf_synth.training.arguments import WeightArguments, parse_recipe
from hf_synth.training.weighting import PromptDensity, WeighedRows

DENSITY = np.array([9.0, 8, 7, 3, 2, 1])
PROMPTS = Dataset.from_dict(
    {
        "prompt": ["aa", "a", "aaa", "aaaa", "aaaaa", "aaaaaa"],
        "cluster": ["x", "x", "x", "x", "y", "y"],
        "src": ["hh", "uf", "uf", "uf", "uf", "uf"],
    }
)


def weights(*kinds, strength=1.0, seed=0, prompts=PROMPTS, **options):
    arguments = WeightArguments(sampling_by=list(kinds), sampling_strength=[strength], **options)
    return weighed(prompts, DENSITY, arguments, strength, seed).weights


def weighed(prompts, density, arguments, strength=1.0, seed=0):
    measured = PromptDensity(density, np.zeros((len(density), 2)), 2.0)
    return WeighedRows(prompts, measured, arguments, strength, seed)


def callbacks(arguments, strength):
    """Those that a trainer gets."""
    trainer = SimpleNamespace(added=[])
    trainer.add_callback = trainer.added.append
    weighed(PROMPTS, DENSITY, arguments, strength).add_callbacks(trainer)
    return trainer.added


def test_density_is_what_is_weighed_by_without_a_word():
    assert WeightArguments().sampling_by == ["density"]
    np.testing.assert_allclose(weights("density", strength=0.5), rarity_weights(DENSITY, strength=0.5))
    assert weights("density", strength=0.0).tolist() == [1.0] * 6
    capped = weights("density", max_ratio=2.0)
    assert capped.max() / capped.min() == pytest.approx(2)


def test_permuted_weights_depend_on_the_seed_alone():
    straight, moved = weights("density"), weights("permuted")
    np.testing.assert_allclose(np.sort(moved), np.sort(straight))
    assert effective_sample_size(moved) == pytest.approx(effective_sample_size(straight))
    np.testing.assert_array_equal(moved, weights("permuted"))
    assert len({tuple(weights("permuted", seed=seed)) for seed in range(5)}) > 1


def test_clusters_and_sources_get_equal_mass():
    np.testing.assert_allclose(weights("cluster"), [0.75] * 4 + [1.5] * 2)
    np.testing.assert_allclose(weights("source"), [3.0] + [0.6] * 5)
    np.testing.assert_allclose(weights("uniform"), np.ones(6))


def test_named_sources_get_their_fraction_of_the_draws_and_the_others_the_rest_by_rows():
    """Two draws a row for what is named; what is not shares 12 draws, its larger source twice as many."""
    sources = ["code"] * 4 + ["math"] * 10 + ["hh"] * 16 + ["uf"] * 8 + [None] * 2
    rows = Dataset.from_dict({"prompt": [str(n) for n in range(40)], "src": sources})
    for given in (["code=0.2", "math=0.5"], {"code": 0.2, "math": 0.5}):
        arguments = WeightArguments(sampling_by=["source"], source_shares=given)
        by_source = weighed(rows, np.ones(40), arguments).weights
        np.testing.assert_allclose(by_source, [2.0] * 14 + [12 / 26] * 26)
    sampler, drawn = DensityWeightedSampler(by_source, seed=3), Counter()
    for each in range(50):
        sampler.set_epoch(each)
        drawn = Counter(sources[row] for row in sampler)
        assert (drawn["code"], drawn["math"], drawn["hh"] + drawn["uf"] + drawn[None]) == (8, 20, 12)


@pytest.mark.parametrize("text", ["hh=0.25", "[hh=0.25]", "{hh: 0.25}"])
def test_shares_in_yaml_are_one_text_several_or_a_mapping(text, tmp_path):
    (tmp_path / "my.yaml").write_text(f"sampling_by: source\nsource_shares: {text}\n")
    (arguments,) = parse_recipe([WeightArguments], ["--config", str(tmp_path / "my.yaml")])
    assert arguments.source_shares == {"hh": 0.25}


@pytest.mark.parametrize("words", [["hh=0.25"], ['{"hh": 0.25}']])
def test_shares_as_flags_are_words_or_json(words):
    (arguments,) = parse_recipe([WeightArguments], ["--sampling_by", "source", "--source_shares", *words])
    assert arguments.source_shares == {"hh": 0.25}


def test_a_source_may_get_nothing_or_all():
    shares = {"sampling_by": ["source"], "source_shares": {"hh": 0.0, "uf": 1.0}}
    assert weighed(PROMPTS, DENSITY, WeightArguments(**shares)).weights.tolist() == [0.0] + [1.2] * 5
    assert WeightArguments(sampling_by=["source"], source_shares=[]).source_shares is None


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (["hhh=0.2"], "source_shares: got 'hhh', which no row is from; did you mean 'hh'"),
        (["hh=0.2", "uf=0.7"], "source_shares: got 0.9 for all sources together, wanted 1"),
        (["hh=0.2", "uf=0.9"], "wanted NAME=FRACTION for each source once, at least 0, at most 1 in all"),
        (["hh=-0.2"], r"source_shares: got \['hh=-0.2'\], wanted NAME=FRACTION"),
        ({"hh": -0.2}, "wanted NAME=FRACTION"),
        ({"hh": "nan"}, "wanted NAME=FRACTION"),
        ({"hh": True}, "wanted NAME=FRACTION"),
        (["hh=0.1", "hh=0.2"], "wanted NAME=FRACTION for each source once"),
        (["hh"], "wanted NAME=FRACTION"),
        (["=0.5"], "wanted NAME=FRACTION"),
    ],
)
def test_shares_that_are_none_are_errors(shares, message):
    with pytest.raises(ValueError, match=message):
        weights("source", source_shares=shares)


def test_shares_need_weights_by_source():
    with pytest.raises(ValueError, match=r"source_shares: got \{'hh': 0.5\} without source in sampling_by; add it"):
        WeightArguments(source_shares=["hh=0.5"])


def test_kinds_multiply():
    product = weights("cluster") * weights("source") * weights("density", strength=2.0)
    np.testing.assert_allclose(weights("cluster", "density", "source", strength=2.0), product / product.mean())


def test_kinds_that_change_begin_where_nothing_is_known():
    assert weights("pass_rate").tolist() == [1.0] * 6
    assert weights("density", strength_schedule="rising").tolist() == [1.0] * 6
    np.testing.assert_allclose(weights("density", strength_schedule="falling"), rarity_weights(DENSITY))


def test_a_curriculum_takes_the_column_or_the_length():
    by_length = weights("curriculum")
    assert by_length.argmax() == 1
    harder = PROMPTS.add_column("difficulty", [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert weights("curriculum", prompts=harder).argmax() == 5


@pytest.mark.parametrize(("kind", "column"), [("cluster", "cluster"), ("source", "src")])
def test_a_missing_column_is_an_error(kind, column):
    with pytest.raises(ValueError, match=f"got '{kind}', and the prompts have no column '{column}', only prompt"):
        weights(kind, prompts=PROMPTS.select_columns("prompt"))


def test_fixed_weights_need_no_callback():
    arguments = WeightArguments(sampling_by=["density", "cluster"])
    assert callbacks(arguments, 1.0) == []
    rising = WeightArguments(strength_schedule="rising")
    assert callbacks(rising, 0.0) == [], "nothing changes for a control"
    (callback,) = callbacks(rising, 1.0)
    assert [factor.name for factor in callback.factors] == ["density"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampling_by": ["densty"]}, "sampling_by: got 'densty'.*density"),
        ({"sampling_by": []}, r"sampling_by: got \[\], wanted one or more"),
        ({"sampling_by": ["cluster", "cluster"]}, "wanted one or more different kinds"),
        ({"sampling_by": ["density", "permuted"]}, "of density and permuted at most one"),
        ({"sampling_by": ["cluster"], "sampling_strength": [1, 0]}, "the arms would not differ"),
        ({"strength_schedule": "up"}, "strength_schedule: got 'up'"),
        ({"round_size": 0}, "round_size: got 0"),
        ({"density_refresh": 0}, "density_refresh: got 0"),
    ],
)
def test_arguments_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        WeightArguments(**options)


def test_one_kind_needs_no_list():
    assert WeightArguments(sampling_by="cluster").sampling_by == ["cluster"]
