"""Writes a table of what became of each tiny model in several wheels.

    python benchmarks/models_table.py REPORTS.json...

The files are those of ``vllm-wheels verify --models all --json``; upstream's own wheel can be among them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.runs.models import table


def main() -> None:
    """Prints the table as Markdown: a row for each model, a column for each wheel."""
    found = [each for path in map(Path, sys.argv[1:]) for each in json.loads(path.read_text("utf-8"))["reports"]]
    reports = [Report.from_json(each) for each in found]
    columns = {report.variant or report.distribution: report for report in reports}
    kinds = {name: {each.model: each.kind for each in report.outcomes} for name, report in columns.items()}
    lines = [["model", *columns], ["---"] * (1 + len(columns))]
    for model, entry in table()["models"].items():
        lines.append([entry["title"], *(kinds[name].get(model, "not tried") for name in columns)])
    sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
