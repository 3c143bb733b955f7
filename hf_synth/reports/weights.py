"""The section on sampling weights: who is drawn how often, and why."""

import numpy as np

from hf_synth.reports.figures import save
from hf_synth.reports.run import Arm, Prompts, Run
from hf_synth.reports.weight_figures import density_histogram, prompt_map, weight_against_frequency
from hf_synth.reports.words import escaped, listed, number, percent, picture, table

_EXAMPLES = 5
_CHANGING = ("strength_schedule", "density_refresh")


def weight_sections(run: Run) -> list[str]:
    """Tables and figures of the weights; nothing where the run has no table of them."""
    main = run.main
    if main.prompts is None or not len(main.prompts.text):
        return []
    found = ["## Weights", _meaning(run), _facts(run)]
    found += _clusters(run) if len(run.sizes) > 1 else []
    found += _density(run, main.prompts)
    found += [] if run.sizes else _examples(main.prompts)
    return found


def _meaning(run: Run) -> str:
    text = (
        "Density says how many other prompts lie near one: larger is more crowded. A prompt's weight says how often "
        "it is drawn, compared with the average prompt: 2 is twice as often."
    )
    if run.kinds == ["density"]:
        text += " Weights fall as density rises."
    else:
        text += f" Here weights are by {listed(run.kinds) if run.kinds else 'nothing, all alike'}."
    if changing := [name for name in _CHANGING if run.config.get(name) not in (None, "constant")]:
        text += f" They change while the model trains ({listed(changing)}); shown are those of the first round."
    elif {"pass_rate", "curriculum"} & set(run.kinds):
        text += " They change while the model trains; shown are those of the first round."
    if not run.weighted:
        return text + " In this run every weight is 1, and density was only measured."
    return (
        text + " The effective sample size is the number of equally weighted prompts that would be as much data. "
        "The intrinsic dimension is the number of directions in which neighbours of a prompt spread."
    )


def _facts(run: Run) -> str:
    rows = []
    for arm in run.arms:
        metric = arm.metrics.get
        share = metric("weights/effective_share")
        size = number(metric("weights/effective_sample_size")) + (f" ({percent(share)})" if share is not None else "")
        names = ("weights/intrinsic_dimension", "weights/smallest", "weights/largest")
        rows.append([arm.label, size, *(number(metric(name)) for name in names)])
    header = ["arm", "effective sample size", "intrinsic dimension", "smallest weight", "largest weight"]
    return table(header, rows)


def _clusters(run: Run) -> list[str]:
    """The table per cluster, and weight against frequency."""
    weighted = [arm for arm in run.weighted if arm.prompts is not None] or [run.arms[0]]
    many = len(weighted) > 1
    header = ["cluster", "prompts", "share of prompts"]
    for arm in weighted:
        header += [name + (f", {arm.label}" if many else "") for name in ("mean weight", "share of draws")]
    total = sum(run.sizes.values())
    rows = []
    for cluster, size in run.sizes.items():
        cells = [escaped(cluster, 60), number(size), percent(size / total)]
        for arm in weighted:
            mean, mass = cluster_weight(arm, cluster)
            cells += [f"{mean:.3f}", percent(mass)]
        rows.append(cells)
    save(weight_against_frequency(run), run.folder, "weight_against_frequency")
    ideal = percent(1 / len(run.sizes))
    text = (
        f"Perfect balance would give each of the {len(run.sizes)} clusters {ideal} of the draws. "
        + ("The weights know nothing of the clusters: they see only density. " if run.kinds == ["density"] else "")
        + "The figure shows how near they come to perfect balance."
    )
    alt = "mean weight of each cluster against its share of the prompts"
    return ["### Clusters", table(header, rows), text, picture("weight_against_frequency", alt)]


def cluster_weight(arm: Arm, cluster: str) -> tuple[float, float]:
    """The mean weight of a cluster's prompts, and its share of the draws."""
    prompts = arm.prompts
    assert prompts is not None
    assert prompts.cluster is not None
    members = prompts.weight[prompts.cluster == cluster]
    return float(members.mean()), float(members.sum() / prompts.weight.sum())


def _density(run: Run, prompts: Prompts) -> list[str]:
    save(density_histogram(run), run.folder, "density_histogram")
    save(prompt_map(prompts), run.folder, "prompt_map")
    colour = "density" if prompts.uniform else "weight"
    text = (
        "The map shows each prompt as a point, placed by the two directions in which the embeddings differ most. "
        f"Near points are similar prompts; two directions cannot show all the distances. Colour is the {colour}."
    )
    return [
        "### Density",
        picture("density_histogram", "histogram of the density of prompts"),
        "### Map of the prompts",
        text,
        picture("prompt_map", f"map of the prompts coloured by {colour}"),
    ]


def _examples(prompts: Prompts) -> list[str]:
    """The rarest and the most crowded prompts, each text once."""
    order = np.argsort(prompts.density, kind="stable")
    found = []
    for title, rows in (("Rarest prompts", order), ("Most crowded prompts", order[::-1])):
        chosen: dict[str, int] = {}
        for row in rows.tolist():
            chosen.setdefault(prompts.text[row], row)
            if len(chosen) == _EXAMPLES:
                break
        cells = [
            [escaped(text), number(prompts.density[row]), number(prompts.weight[row])] for text, row in chosen.items()
        ]
        found += [f"### {title}", table(["prompt", "density", "weight"], cells)]
    return found
