"""The report of a comparison in words and tables, and its files beside."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from hf_synth.evaluation.held_out import SAMPLES
from hf_synth.experiments.plan import COMPARISON
from hf_synth.experiments.statistics import Difference, power_statement, verdict
from hf_synth.reports.comparing.figures import draw_figures
from hf_synth.reports.comparing.reading import Compared, read_compared
from hf_synth.reports.page import html_page
from hf_synth.reports.words import code, code_block, escaped, listed, number, picture, spread, table

DIFFERENCES = "differences.csv"
_SIDE_BY_SIDE = 6
_SHARE = "weights/effective_share"


def write_comparison(folder: Path) -> Path:
    """Write report.md, report.html, figures, differences.csv and all samples into the folder; returns report.html.

    With `page` the report becomes a section of that Markdown file too.
    """
    compared = read_compared(folder)
    figures = draw_figures(compared)
    text = _text(compared, figures, _SIDE_BY_SIDE)
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
    (folder / "report.html").write_text(html_page(text), encoding="utf-8", newline="\n")
    write_differences(compared)
    write_all_samples(compared)
    if compared.arguments.page:
        shown = _text(compared, figures, compared.arguments.page_prompts)
        add_to_page(Path(compared.arguments.page), compared, shown, figures)
    return folder / "report.html"


def _text(compared: Compared, figures: Sequence[str], prompts: int) -> str:
    """The report in Markdown, with the answers to so many prompts."""
    sections = [
        f"# {escaped(compared.arguments.title)}",
        *_question(compared),
        *_answer(compared),
        *_pictures(figures),
        *_measures(compared),
        *_side_by_side(compared, prompts),
        *_again(compared),
    ]
    return "\n\n".join(sections) + "\n"


def _question(compared: Compared) -> list[str]:
    arguments = compared.arguments
    rows = [
        [
            code(arm),
            ", ".join(code(f"{name}={value}") for name, value in (values or {}).items()) or "as configured",
            number(len(compared.results.get(arm, {}))),
            spread(compared.interval(arm, _SHARE)),
        ]
        for arm, values in arguments.arms.items()
    ]
    least = f" A difference below {arguments.smallest_effect:g} would not matter." if arguments.smallest_effect else ""
    facts = [
        f"Recipe: {code(f'recipes/{arguments.recipe}.py')}; arms of a seed differ in what the table says and in "
        "nothing else, which is checked against the configs that the runs kept.",
        f"Primary measure, named before the runs: {code(arguments.primary)}, {arguments.better} is better.{least}",
        *power_statement(arguments),
    ]
    return [
        "## What was asked",
        "\n".join(f"- {fact}" for fact in facts),
        table(["arm", "what it differs in", "seeds", "effective share"], rows, text_columns=2),
        "The effective share is the effective sample size of the weights that a run begins with, over its prompts.",
        *_unfinished(compared),
    ]


def _unfinished(compared: Compared) -> list[str]:
    """Runs that are not in the report, or not in its answer."""
    primary = compared.arguments.primary
    without = [
        f"{arm}/seed-{seed}" for arm, runs in compared.results.items() for seed in runs if primary not in runs[seed]
    ]
    told = ((compared.missing, "Not finished, so not in this report"), (without, "Without the primary measure"))
    return [f"> {what}: {listed([code(name) for name in names])}." for names, what in told if names]


def _answer(compared: Compared) -> list[str]:
    arguments = compared.arguments
    if not compared.primary:
        return ["## Answer", "Fewer than two seeds have finished in both arms of any pair: nothing can be said."]
    lines = []
    for difference in compared.primary:
        found = verdict(difference, arguments.better, arguments.smallest_effect, tests=len(compared.primary))
        pair = f"{code(difference.arm)} does better than {code(difference.other)}"
        lines.append(
            f"- **{found.word}**: {pair} in {code(arguments.primary)}. {found.reason[0].upper()}{found.reason[1:]}."
        )
    meaning = (
        "Differences are paired by seed, with Student's 95 % interval over seeds; p-values are Student's paired "
        f"ones, corrected by Holm's method over all pairs ({len(compared.primary)})."
    )
    return ["## Answer", "\n".join(lines), meaning]


def _pictures(figures: Sequence[str]) -> list[str]:
    return [f"{_CAPTIONS[name]}\n\n{picture(name, _CAPTIONS[name].split('.')[0])}" for name in figures]


_CAPTIONS = {
    "primary": "The primary measure by arm. Diamonds are means, lines 95 % intervals over seeds, dots single seeds.",
    "groups": "From the head to the tail. Means over seeds with 95 % intervals, the most crowded on the left.",
    "steps": "Over training. Means over seeds at each look, with 95 % intervals; on the right against the KL "
    "divergence from the reference policy, a point for each look.",
}  # fmt: skip


def _measures(compared: Compared) -> list[str]:
    names = compared.shown
    rows = [[code(name), *(spread(compared.interval(arm, name)) for arm in compared.arms)] for name in names]
    sections = [
        "## Measures",
        "Means over seeds with Student's 95 % interval.",
        table(["measure", *(code(arm) for arm in compared.arms)], rows),
    ]
    if not compared.primary:
        return sections
    pairs = compared.arguments.pairs
    moved = [name for name in names if any(_moves(compared.of(name, *pair)) for pair in pairs)]
    lines = [[code(name), *(_cell(compared, name, *pair) for pair in pairs)] for name in moved]
    header = ["measure", *(f"{code(arm)} less {code(other)}" for arm, other in pairs)]
    text = (
        "Differences, seed by seed; bold where the corrected p-value is below 0.05. Those of the primary measure are "
        f"corrected among themselves, the others over all {len(compared.headlines)} of this table. What else was "
        f"measured is in {code(DIFFERENCES)}, a family of its own."
    )
    return [*sections, "## Differences", text, table(header, lines)]


def _moves(found: Difference | None) -> bool:
    """Whether any seed differs at all."""
    return found is not None and bool(found.sd or found.interval.mean)


def _cell(compared: Compared, measure: str, arm: str, other: str) -> str:
    found = compared.of(measure, arm, other)
    if found is None:
        return "-"
    text = spread(found.interval)
    return f"**{text}**" if found.corrected < 0.05 else text


def _side_by_side(compared: Compared, shown: int) -> list[str]:
    """The first answers of the arms of the first pair to a few prompts, spread evenly over all."""
    arm, other = compared.arguments.pairs[0]
    seeds = sorted(set(compared.runs.get(arm, {})) & set(compared.runs.get(other, {})))
    if not seeds or not shown:
        return []
    tables = [compared.runs[name][seeds[0]].folder / SAMPLES for name in (arm, other)]
    if not all(path.exists() for path in tables):
        return []
    one, two = (_first_answers(path) for path in tables)
    prompts = [prompt for prompt in one if prompt in two]
    step = max(1, len(prompts) // shown)
    rows = [
        [escaped(prompt[-160:]), escaped(one[prompt], 160), escaped(two[prompt], 160)]
        for prompt in prompts[::step][:shown]
    ]
    text = f"Seed {seeds[0]}, the first sampled answer to each; all of them are in {code(SAMPLES)}."
    return ["## Side by side", text, table(["prompt", code(arm), code(other)], rows, text_columns=3)]


def _first_answers(path: Path) -> dict[str, str]:
    columns = pq.read_table(path, columns=["prompt", "completion", "sample"]).to_pydict()
    rows = zip(columns["prompt"], columns["completion"], columns["sample"], strict=True)
    return {prompt: completion for prompt, completion, sample in rows if sample == 0}


def _again(compared: Compared) -> list[str]:
    kept: dict[str, Any] = yaml.safe_load((compared.folder / COMPARISON).read_text(encoding="utf-8"))
    settings = {**kept.pop("base"), **{name: value for name, value in kept.items() if value not in (None, {}, [])}}
    command = "accelerate launch recipes/compare.py --config my.yaml --output_dir runs/again"
    return [
        "## Again",
        "The settings, to be saved as `my.yaml`:",
        code_block(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110), "yaml"),
        "and from the repository:",
        code_block(command, "bash"),
        "Given again, the command that made this finds the finished runs and trains what is missing.",
    ]


def write_differences(compared: Compared) -> None:
    """Write differences.csv: every measure and pair, with interval, standard deviation and p-values."""
    header = ["measure", "arm", "other", "seeds", "mean", "low", "high", "sd", "p", "corrected_p"]
    with (compared.folder / DIFFERENCES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for found in compared.differences:
            numbers = [*found.interval, found.sd, found.p, found.corrected]
            writer.writerow(
                [found.measure, found.arm, found.other, found.seeds, *(f"{value:.6g}" for value in numbers)]
            )


def write_all_samples(compared: Compared) -> None:
    """Write samples.parquet: those of all runs, with their arm and seed."""
    parts = []
    for arm, runs in compared.runs.items():
        for seed, run in sorted(runs.items()):
            if (path := run.folder / SAMPLES).exists():
                part = pq.read_table(path)
                rows = len(part)
                parts.append(part.add_column(0, "seed", pa.array([seed] * rows, pa.int32())).add_column(
                    0, "arm", pa.array([arm] * rows)))  # fmt: skip
    if parts:
        pq.write_table(pa.concat_tables(parts), compared.folder / SAMPLES)


def add_to_page(page: Path, compared: Compared, text: str, figures: Sequence[str]) -> None:
    """Put the report into a Markdown file as a section of its own, in place of what the same folder put there."""
    key = compared.folder.name
    begin, end = f"<!-- begin {key} -->", f"<!-- end {key} -->"
    place = page.parent / page.stem
    place.mkdir(parents=True, exist_ok=True)
    for name in figures:
        shutil.copyfile(compared.folder / "figures" / f"{name}.png", place / f"{key}_{name}.png")
        text = text.replace(f"(figures/{name}.png)", f"({page.stem}/{key}_{name}.png)")
    section = "\n".join("#" + line if line.startswith("#") else line for line in text.splitlines())
    before = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
    head, _, rest = before.partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head.rstrip()}\n\n{begin}\n{section}\n{end}\n{tail.lstrip()}", encoding="utf-8", newline="\n")
