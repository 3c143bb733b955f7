"""Two real processes: whole groups, disjoint parts, exact resume, and weights that differ are noticed."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def ranks(start_script, tmp_path_factory):
    """What the two processes of worker.py report, by rank."""
    return two_processes(start_script, tmp_path_factory.mktemp("ranks"))


def two_processes(start_script, out, *flags):
    done = start_script(Path(__file__).with_name("worker.py"), out, *flags, cwd=out, processes=2).wait()
    assert done.code == 0, done
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_share_each_round(ranks):
    """13 draws a round in batches of 2 for each of 2 ranks: 4 steps, the last filled up from the round's beginning."""
    assert [r["plain"]["world"] for r in ranks] == [2, 2]
    for epoch in range(3):
        steps = [r["plain"]["steps"][4 * epoch : 4 * epoch + 4] for r in ranks]
        order = [row for pair in zip(*steps, strict=True) for part in pair for row in part]
        counts = [order[:13].count(row) for row in range(13)]
        assert sum(counts) == 13
        assert counts[1] == counts[8] == 0
        assert counts[0] in (3, 4), "13 * 5 / 18 = 3.6"
        assert order[13:] == order[:3]


def test_grpo_groups_are_whole_and_parts_disjoint(ranks):
    """A generation batch is 16 rows: 4 prompts of 4 completions, 2 prompts on each rank."""
    calls = [r["grpo"]["calls"] for r in ranks]
    assert len(calls[0]) == len(calls[1]) == 6, "13 rows: 3 batches of 4 prompts a round, 2 rounds"
    together = []
    for first, second in zip(*calls, strict=True):
        for part in (first, second):
            assert len(part) == 8
            assert len(set(part[:4])) == len(set(part[4:])) == 1
        together += [int(prompt[1:]) for prompt in (first + second)[::4]]
    assert together == ranks[0]["grpo"]["drawn"] == ranks[1]["grpo"]["drawn"]


@pytest.mark.parametrize("kind", ["plain", "changed"])
def test_resume_is_exact_on_two_processes(kind, ranks):
    for r in ranks:
        whole, resumed = r[kind], r[f"{kind}_resumed"]
        assert len(resumed["steps"]) == (3 if kind == "plain" else 6)
        assert resumed["steps"] == whole["steps"][-len(resumed["steps"]) :]
        assert resumed["sum"] == whole["sum"]
    assert ranks[0][kind]["sum"] == ranks[1][kind]["sum"]


def test_grpo_resume_is_exact_on_two_processes(ranks):
    for r in ranks:
        assert r["grpo_resumed"]["calls"] == r["grpo"]["calls"][4:]
        assert r["grpo_resumed"]["sum"] == r["grpo"]["sum"]


def test_a_stream_gives_stock_grpo_the_same_groups_on_each_process(ranks):
    for r in ranks:
        assert r["streamed"]["calls"] == r["grpo"]["calls"]


def test_learnt_weights_are_the_same_on_two_processes(ranks):
    """Two prompts a step, one on each: rates are of both; and each embeds half of 13 prompts, one of them twice."""
    first, second = (r["changing"] for r in ranks)
    for name in ("rates", "density", "weights", "now"):
        assert first[name] == second[name], name
    assert set(first["sizes"][:-2]) == {7}
    assert first["now"] == pytest.approx(first["plainly"], rel=1e-6)
    tried = {int(prompt[1:]) for r in ranks for call in r["changing"]["calls"] for prompt in call}
    unknown = {first["rates"][row] for row in range(13) if row not in tried}
    assert len(unknown) == 1, "what was never tried is at the mean of all"
    assert not unknown & {first["rates"][row] for row in tried}


def test_learnt_weights_resume_exactly_on_two_processes(ranks):
    for r in ranks:
        whole, resumed = r["changing"], r["changing_resumed"]
        assert resumed["calls"] == whole["calls"][6:]
        for name in ("rates", "density", "weights", "sum"):
            assert resumed[name] == whole[name], name


def test_weights_that_differ_between_processes_are_an_error(ranks):
    for r in ranks:
        assert "the processes hold different sampling weights in round 0" in r["disagreement"]


@pytest.mark.nightly
def test_a_weighted_trainer_is_the_stock_one_on_two_processes(start_script, tmp_path):
    """As test_stock.py has it on one: every loss and weight of SFT, Reward, DPO, GRPO and RLOO, to the last bit."""
    ranks = two_processes(start_script, tmp_path, "stock")
    assert len(ranks[0]) >= 17
    for case, result in ranks[0].items():
        for rank in (result, ranks[1][case]):
            weighted, stock = rank["losses"]
            assert rank["world"] == 2
            assert weighted == stock, case
            assert rank["equal"], case
        assert len(set(result["losses"][0])) > 1, case
        assert result["sum"] == ranks[1][case]["sum"], case
