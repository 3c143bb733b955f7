"""Small sources in three published layouts, with everything planted that has to be found."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TOPICS = ("boil an egg", "paint a small wooden boat", "train a very old dog", "knit a scarf for winter")


def question(number: int) -> str:
    """A prompt of its own: no two share three words in a row but those of their topic."""
    words = " ".join(f"word{number}x{place}" for place in range(12))
    return f"How do I {TOPICS[number % len(TOPICS)]}? {words}"


def hh(number: int, reply: str = "Yes.") -> dict[str, str]:
    """A row of Anthropic/hh-rlhf."""
    sides = {"chosen": reply, "rejected": "No."}
    return {side: f"\n\nHuman: {question(number)}\n\nAssistant: {text}" for side, text in sides.items()}


def uf(number: int, prompt: str | None = None) -> dict[str, object]:
    """A row of ultrafeedback_binarized."""
    text = prompt or question(number)
    turns = {
        side: [{"role": "user", "content": text}, {"role": "assistant", "content": side}]
        for side in ("chosen", "rejected")
    }
    return {"prompt": text, "prompt_id": "0", **turns, "score_chosen": 9.0, "score_rejected": 9.0 * (number == 117)}


def se(number: int) -> dict[str, object]:
    """A row of stack-exchange-preferences that gives two pairs."""
    answers = [{"answer_id": n, "pm_score": n, "selected": False, "text": f"<p>answer {n}</p>"} for n in range(3)]
    code = "<pre><code>if x &lt; 1:\n    y()\n</code></pre>"
    return {"qid": number, "question": f"<p>{question(number)}</p>\n{code}", "answers": answers, "date": "2020/01/01"}


@pytest.fixture(scope="session")
def places(tmp_path_factory) -> dict[str, Path]:
    """Files by short name: 34 rows of hh, 20 of uf, 15 of se.

    hh: two lines are broken, one pair comes twice, one prompt has a second pair, one nearly repeats another.
    uf: one prompt is one of hh's, one nearly repeats one of hh's, one row has equal scores.
    """
    folder = tmp_path_factory.mktemp("sources")
    rows = [hh(number) for number in range(29)]
    near = {side: text.replace("How do I", "HOW do I").replace("?", "!") for side, text in hh(5, "Perhaps.").items()}
    rows += [hh(3), hh(4, "Maybe."), near]
    lines = [*map(json.dumps, rows), "broken", json.dumps({"chosen": "only"})]
    result = {"hh": folder / "hh.jsonl", "uf": folder / "uf.parquet", "se": folder / "se.parquet"}
    result["hh"].write_text("\n".join(lines) + "\n")
    asked = [*(uf(number) for number in range(100, 118)), uf(0), uf(0, question(7) + " Please.")]
    pq.write_table(pa.Table.from_pylist(asked), result["uf"])
    pq.write_table(pa.Table.from_pylist([se(number) for number in range(200, 215)]), result["se"])
    return result
