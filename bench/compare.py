"""What changed between two JSON files of a bench: ``python bench/compare.py OLD.json NEW.json``.

Times of two runs are compared as they are, so the machine's own drift is in them; the peers' drift
is stated below the table.  The ratio to the best peer was measured within one run.  Exit status 0.
"""

import argparse
import json
import statistics
import sys

import harness

# Within these an old/new quotient of times is a tie: less is noise on a shared machine.
TIE = (0.8, 1.25)


def key(found, record):
    """What makes two records the same case."""
    return (
        found["bench"],
        found["dtype"],
        found["n_threads"],
        record["job"],
        json.dumps(record["sizes"], sort_keys=True),
    )


def verdict(quotient):
    """In words: old time / new time."""
    if TIE[0] <= quotient <= TIE[1]:
        return "tie"
    return "faster" if quotient > 1 else "slower"


def _median(record, name):
    return record["contestants"].get(name, {}).get("median")


def _peer_drift(old, new):
    quotients = []
    for name in old["contestants"].keys() & new["contestants"].keys() - {harness.OURS}:
        before, after = _median(old, name), _median(new, name)
        if before and after:
            quotients.append(before / after)
    return quotients


def _ratio_text(record):
    return f"{record['ratio']['median']:.2f}" if record["ratio"] else "-"


def compare(old, new):
    """Lines of a Markdown table of old time / new time, and what cannot be compared.

    Parameters
    ----------
    old, new : dict
        Documents of `harness.read`.

    Returns
    -------
    list of str
    """
    before = {key(old, record): record for record in old["cases"]}
    after = {key(new, record): record for record in new["cases"]}
    lines = [
        "| job | sizes | old / new time | | best peer / ours, old | new |",
        "|---|---|---|---|---|---|",
    ]
    drifts = []
    for case in (case for case in before if case in after):
        first, second = before[case], after[case]
        drifts += _peer_drift(first, second)
        times = _median(first, harness.OURS), _median(second, harness.OURS)
        if all(times):
            quotient = times[0] / times[1]
            change = f"{quotient:.2f} | {verdict(quotient)}"
        else:
            change = "- | wrong answer"
        lines.append(
            f"| {first['job']} | {harness.describe(first['sizes'])} | {change} "
            f"| {_ratio_text(first)} | {_ratio_text(second)} |"
        )
    lines.append("")
    if drifts:
        lines.append(f"The peers' own old / new time: median {statistics.median(drifts):.2f}.")
    for name, these, those in (("OLD", before, after), ("NEW", after, before)):
        if n_alone := len(these.keys() - those.keys()):
            lines.append(f"Only in {name}: {n_alone} cases.")
    lines += [
        f"The two differ in {name}: {old['machine'][name]} and {new['machine'][name]}."
        for name in ("cpu", "isa", "blas")
        if old["machine"][name] != new["machine"][name]
    ]
    return lines


def main(arguments=None):
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="What changed between two runs of a bench.")
    parser.add_argument("old", metavar="OLD.json")
    parser.add_argument("new", metavar="NEW.json")
    parsed = parser.parse_args(arguments)
    print("\n".join(compare(harness.read(parsed.old), harness.read(parsed.new))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
