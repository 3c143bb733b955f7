"""The dataset card of preference pairs: how to load them, what a row is, and what became of every source."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import DatasetCardData

from hf_synth.hub.cards import Manifest, merged_card, table
from hf_synth.hub.repository import TAG, prose
from preference_pairs.weighing import Weighing

_ORDER = ("pairs", "prompts", "id_to_prompt")
_MEANINGS = {
    "id": "the first 16 hex digits of the MD5 of prompt and replies",
    "prompt_id": "the first 16 hex digits of the MD5 of the normalised prompt: the same on all machines",
    "src": "the source, as named below",
    "prompt": "the conversation up to the reply; it ends with the user",
    "chosen": "the better reply",
    "rejected": "the worse reply",
    "density": "how dense the surroundings of the row's prompt are: larger = denser; copies count",
    "sampling_weight": "how often to draw the row, mean 1: rare rows weigh more. The weighted trainers of hf_synth "
    "read this column",
    "count": "how many pairs have this prompt",
    "repeats": "the id of the first prompt that this one nearly repeats; its own id where it repeats none",
    "text": "the prompt as one text",
}
_ABOUT = {
    "pairs": "Preference pairs in TRL's conversational format.",
    "prompts": "The distinct prompts of these pairs, for training that makes its own replies.",
    "id_to_prompt": "Every prompt that was read, by its id, near duplicates included.",
}


def card(
    name: str, built: Mapping[str, Any], weighing: Weighing, manifests: Mapping[str, Manifest], there: str = ""
) -> str:
    """Return the README.md of a folder or repository of this name; `built` as `building.build` returns it.

    `there`: the card that it has, of which configs and text of others stay.
    """
    ordered = [manifests[config] for config in _ORDER]
    parts = ["# Preference pairs", "Pairs of several sources in one format, with the density of their prompts."]
    parts += [*_loading(name), *_rows(ordered), *_sources(built["sources"]), *_weights(built, weighing)]
    parts += ["## Licence", "The texts are the sources', under the sources' licences."]
    data = DatasetCardData(
        license="other",
        pretty_name="Preference pairs",
        task_categories=["text-generation"],
        tags=["trl", "preference", TAG],
    )
    rows = ordered[0]["splits"]["train"]["rows"]
    return merged_card(there, "preferences", "\n\n".join(parts), data, ordered, rows)


def counts_lines(sources: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a title line and a line for each source: what was read, made, dropped and kept."""
    lines: list[tuple[str, ...]] = [
        ("source", "schema", "rows read", "rows dropped", "pairs made", "pairs dropped", "pairs kept", "prompts")
    ]
    for src, counts in sources.items():
        numbers = (counts[name] for name in ("rows_read", "pairs_made", "pairs_kept", "prompts_kept"))
        read, made, kept, prompts = (f"{number:,}" for number in numbers)
        dropped = (
            ", ".join(f"{reason}: {number:,}" for reason, number in counts[name].items()) or "0"
            for name in ("rows_dropped", "pairs_dropped")
        )
        lines.append((src, counts["schema"], read, next(dropped), made, next(dropped), kept, prompts))
    return lines


def _loading(name: str) -> Iterator[str]:
    yield "## Load it"
    calls = (f'{config} = load_dataset("{name}", "{config}", split="train")' for config in _ORDER)
    yield "```python\nfrom datasets import load_dataset\n\n" + "\n".join(calls) + "\n```"
    yield "The files are Parquet: neither hf_synth nor remote code is needed."


def _rows(manifests: Sequence[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        name = manifest["name"]
        yield f"## `{name}`"
        yield f"{_ABOUT[name]} {manifest['splits']['train']['rows']:,} rows."
        lines = (
            (f"`{column}`", _type(feature), _MEANINGS[column]) for column, feature in manifest["features"].items()
        )
        yield table(("column", "type", "what it is"), lines)


def _type(feature: Mapping[str, Any]) -> str:
    return "list of `{role, content}`" if "feature" in feature else feature["dtype"]


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    titles, *lines = counts_lines(sources)
    yield "## What became of the sources"
    yield (
        "A row that cannot be used is left out, and so is a pair that comes twice. `counts.json` has the numbers by "
        "reason; the rows themselves are not published. A prompt that several sources have is counted at the first."
    )
    yield table(titles, [tuple(map(prose, line)) for line in lines])


def _weights(built: Mapping[str, Any], weighing: Weighing) -> Iterator[str]:
    density, facts = built["density"], built["weights"]
    yield "## Near duplicates, density and weights"
    kept = "are left out, with their pairs" if weighing.near_duplicates == "drop" else "stay"
    yield (
        f"Prompts that differ from an earlier one in a single sentence, and there share at least "
        f"{weighing.similarity:g} of the runs of three words, {kept}. Density is that of the {weighing.density_k} "
        "nearest different prompts (embedder "
        f"`{weighing.embedder}`, estimator `{weighing.density_estimator}`, {weighing.density_smoothing} rounds of "
        f"smoothing; found by `{density['backend']}` with "
        f"recall {density['recall']:.3f}; intrinsic dimension {density['dimension']:.1f}), in `pairs` times the "
        "number of pairs that the prompt has. `sampling_weight` is density to the power of "
        f"-{weighing.sampling_strength:g}, the largest at most {weighing.max_ratio:g} times the smallest."
    )
    titles, *lines = weight_lines(facts)
    yield table(titles, [(f"`{name}`", *cells) for name, *cells in lines])
    most, pairs, prompts = facts["prompts"]["most_pairs"], facts["pairs"]["rows"], facts["prompts"]["rows"]
    yield f"{pairs:,} pairs have {prompts:,} prompts, at most {most:,} pairs one of them."


def weight_lines(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a title line and a line for each config: what its rows weigh."""
    ends = ("smallest", "median", "largest")
    share = "draws of prompts with several pairs"
    lines = [("config", "rows", "effective sample size", *(f"{end} weight" for end in ends), share)]
    for name, of in facts.items():
        sizes = (f"{of['rows']:,}", f"{of['effective_sample_size']:,.0f}")
        lines.append((name, *sizes, *(f"{of[end]:.4f}" for end in ends), f"{of['repeated_share']:.1%}"))
    return lines
