"""Markdown tables from the JSON files that bench files write.

``python bench/tables.py FILE.json ...`` prints them; ``--into bench/README.md`` puts them between
that file's two marks instead, so that no figure is typed by hand.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path

import harness

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def bound(record, roofs):
    """What limits a case, and which fraction of it ours reached: ("flops" | "bytes", fraction)."""
    seconds = record["contestants"][harness.OURS].get("median")
    if not roofs or not seconds or record["flops"] is None:
        return None
    least = {"flops": record["flops"] / (roofs["gflops"] * 1e9)}
    if record["working_set"]:  # else what bandwidth it could reach is not known
        least["bytes"] = record["n_bytes"] / (roofs["gbytes"][record["working_set"]] * 1e9)
    limit = max(least, key=least.get)
    return limit, least[limit] / seconds


def heading(found):
    """Command, machine, versions and roofs, in prose."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    libraries = "; ".join(
        f"{b['name']} {b['version']} with its {b['kernel']} kernel" for b in machine["blas"]
    )
    threads = f"{found['n_threads']} thread{'s' * (found['n_threads'] > 1)}"
    lines = [
        f"### {found['bench']}, {found['dtype']}, {threads}",
        "",
        f"`{found['command']}` on {machine['cpu']} ({machine['n_cpus']} CPUs, "
        f"{machine['l2_bytes'] / 2**20:g} MB L2, {machine['system']}), "
        f"our {machine['isa']} variant; {versions}; BLAS: {libraries}.",
    ]
    if roofs := found["roofs"]:
        reads = ", ".join(f"{name} {rate:.0f} GB/s" for name, rate in roofs["gbytes"].items())
        lines.append(
            f"Roofs measured in the same run: matmul of 1024 x 1024 {roofs['gflops']:.0f} GF/s; "
            f"reading by BLAS dot: {reads}."
        )
    lines += [f"{note[0].upper()}{note[1:]}." for note in found["notes"]]
    return [*lines, ""]


def row(record, roofs):
    """One line of a job's table."""
    ours = record["contestants"][harness.OURS]
    cells = [str(value) for value in record["sizes"].values()]
    if not ours["is_right"]:
        return "| " + " | ".join([*cells, "wrong answer", "", "", "", "", ""]) + " |"
    seconds = ours["median"]
    cells.append(f"{seconds / record['n_units'] * 1e9:.4g}")
    for amount in (record["flops"], record["n_bytes"]):
        cells.append("-" if amount is None else f"{amount / seconds / 1e9:.1f}")
    limit = bound(record, roofs)
    cells.append(f"{limit[0]}, {limit[1]:.0%}" if limit else "-")
    if record["ratio"]:
        ratio = record["ratio"]
        cells.append(f"{record['best_peer']}")
        cells.append(f"**{ratio['median']:.2f}** ({ratio['q1']:.2f} to {ratio['q3']:.2f})")
    else:
        cells += ["-", "-"]
    return "| " + " | ".join(cells) + " |"


def wrong_peers(records):
    """One line per peer whose answer did not count."""
    return [
        f"{name} got no ratio at {harness.describe(record['sizes'])}: "
        + (
            column.get("failure")
            or f"error {column['error']:.1e}, allowed {record['tolerance']:.1e}."
        )
        for record in records
        for name, column in record["contestants"].items()
        if not column["is_right"]
    ]


def markdown(found):
    """The whole document as lines of Markdown, a table per job."""
    lines = heading(found)
    # Cases of one job with the same kinds of sizes share a table.
    for (job, unit, sizes), group in groupby(
        found["cases"], lambda r: (r["job"], r["unit"], tuple(r["sizes"]))
    ):
        records = list(group)
        columns = [*sizes, f"ns/{unit}", "GF/s", "GB/s", "bound, reached", "best peer"]
        columns.append("best peer / ours (quartiles)")
        lines += [f"**{job}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [row(record, found["roofs"]) for record in records]
        lines += ["", *wrong_peers(records)]
        if lines[-1]:
            lines.append("")
    return lines


def put_between_marks(text, lines):
    """The text with everything between the two marks replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the file has no {BEGIN} followed by {END}")
    return before + begin + "\n\n" + "\n".join(lines).strip() + "\n\n" + end + after


def main(arguments=None):
    """Print the tables or put them into a file."""
    parser = argparse.ArgumentParser(description="Markdown tables from JSON figures.")
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--into", metavar="README.md", help="replace what its marks enclose")
    parsed = parser.parse_args(arguments)
    lines = [line for path in parsed.files for line in markdown(harness.read(path))]
    if parsed.into:
        target = Path(parsed.into)
        target.write_text(put_between_marks(target.read_text(), lines))
    else:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
