"""The benchmark harness: what it refuses, what it writes, what it compares.  Nothing is timed."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"
if not BENCH.is_dir():
    pytest.skip("bench/ is not part of this copy of the tests", allow_module_level=True)


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import harness

    yield harness
    for name in ("harness", "machine", "compare", "tables", "bench_chain", "chain_peers"):
        sys.modules.pop(name, None)


@pytest.fixture
def tables(harness):
    import tables

    return tables


@pytest.fixture
def compare(harness):
    import compare

    return compare


def _fails():
    raise RuntimeError("no such kernel")


def _case(harness, **changes):
    fields = {
        "job": "sum",
        "sizes": {"n": 2},
        "contestants": {"ours": lambda: 3.0, "right": lambda: 3.0 + 1e-13},
        "error": lambda found: abs(found - 3.0),
        "tolerance": 1e-12,
        "flops": 1.0,
        "n_bytes": 8.0,
        "working_set": "L2",
    }
    return harness.Case(**(fields | changes))


def _document(harness, *cases):
    options = harness.Options(quick=True, n_rounds=3, min_seconds=1e-5)
    found = harness.document("sum", cases, options, notes=["a peer is missing"])
    found["roofs"] = {"gflops": 50.0, "gbytes": {"L2": 80.0, "32 MB": 17.0}}
    return found


@pytest.mark.parametrize("answer", [2.0, np.nan, np.inf])
def test_a_peer_with_a_wrong_answer_is_not_timed_and_gets_no_ratio(harness, answer):
    contestants = {"ours": lambda: 3.0, "wrong": lambda: answer}
    record = harness.measure(_case(harness, contestants=contestants), 3, 1e-5)

    assert record["contestants"]["wrong"].keys() == {"error", "is_right"}
    assert not record["contestants"]["wrong"]["is_right"]
    assert record["contestants"]["ours"]["median"] > 0
    assert record["best_peer"] is None
    assert record["ratio"] is None


def test_a_wrong_answer_of_ours_leaves_no_ratio_at_all(harness):
    contestants = {"ours": lambda: 2.0, "right": lambda: 3.0}
    record = harness.measure(_case(harness, contestants=contestants), 3, 1e-5)
    assert "median" not in record["contestants"]["ours"]
    assert record["ratio"] is None


def test_a_peer_that_raises_is_named_with_its_reason(harness):
    contestants = {"ours": lambda: 3.0, "broken": _fails, "right": lambda: 3.0}
    record = harness.measure(_case(harness, contestants=contestants), 3, 1e-5)
    assert record["contestants"]["broken"]["failure"] == "RuntimeError: no such kernel"
    assert record["best_peer"] == "right"
    with pytest.raises(RuntimeError, match="no such kernel"):
        harness.measure(_case(harness, contestants={"ours": _fails}), 3, 1e-5)


def test_answers_are_checked_before_any_round_and_turns_are_interleaved(harness):
    calls = []
    contestants = {name: lambda name=name: calls.append(name) or 3.0 for name in ("ours", "a", "b")}
    # A turn of no length is one call; so is the calibration.
    harness.measure(_case(harness, contestants=contestants), 3, 0.0)
    assert calls == ["ours", "a", "b"] * 2 + ["ours", "a", "b", "a", "b", "ours", "b", "ours", "a"]


def test_a_document_survives_json(harness, tmp_path):
    wrong = {"ours": lambda: 3.0, "wrong": lambda: np.nan}
    found = _document(harness, _case(harness), _case(harness, job="nan", contestants=wrong))
    path = tmp_path / "figures.json"
    harness.write(path, found)
    assert harness.read(path) == found
    assert found["machine"]["isa"]
    assert found["machine"]["versions"]["numpy"] == np.__version__


def test_a_file_of_another_kind_is_rejected(harness, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"other\.json is not a jacometry-bench-1 file"):
        harness.read(path)


def test_compare_calls_small_changes_a_tie(harness, compare, tmp_path, capsys):
    old = _document(harness, *(_case(harness, sizes={"n": n}) for n in (1, 2, 3, 4)))
    new = copy.deepcopy(old)
    for record, factor in zip(new["cases"], (1.0, 0.5, 2.0, 0.85), strict=True):
        record["contestants"]["ours"]["median"] *= factor
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, found in zip(paths, (old, new), strict=True):
        harness.write(path, found)

    assert compare.main([str(path) for path in paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| sum | n=1 | 1.00 | tie |")
    assert lines[3].startswith("| sum | n=2 | 2.00 | faster |")
    assert lines[4].startswith("| sum | n=3 | 0.50 | slower |")
    assert lines[5].startswith("| sum | n=4 | 1.18 | tie |")
    assert "The peers' own old / new time: median 1.00." in lines


def test_compare_names_what_only_one_file_has(harness, compare):
    old = _document(harness, _case(harness), _case(harness, sizes={"n": 9}))
    new = copy.deepcopy(old)
    new["cases"].pop()
    new["machine"]["isa"] = "another"
    text = "\n".join(compare.compare(old, new))
    assert "Only in OLD: 1 cases." in text
    assert "The two differ in isa" in text


def test_tables_go_between_the_marks_and_say_who_was_wrong(harness, tables, tmp_path):
    contestants = {"ours": lambda: 3.0, "right": lambda: 3.0, "wrong": lambda: 2.0}
    figures, readme = tmp_path / "figures.json", tmp_path / "README.md"
    harness.write(figures, _document(harness, _case(harness, contestants=contestants)))
    readme.write_text(f"before\n{tables.BEGIN}\nstale\n{tables.END}\nafter\n")

    assert tables.main([str(figures), "--into", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert "`python bench/bench_sum.py --quick --threads 1 --dtype f64 --isa " in text
    assert "wrong got no ratio at n=2: error 1.0e+00, allowed 1.0e-12." in text
    with pytest.raises(ValueError, match="the file has no"):
        tables.put_between_marks("no marks", [])


def test_a_chain_case_accepts_the_peers_and_refuses_the_reversed_order(harness):
    import bench_chain

    options = harness.Options(dtype="f64")
    case = bench_chain._own(3, "L2", 2**14, np.random.default_rng(3), options, {})
    for solve in case.contestants.values():
        answer = np.array(solve())
        assert case.error(answer) <= case.tolerance
        assert case.error(answer.swapaxes(1, 2)) > case.tolerance
