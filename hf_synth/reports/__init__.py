"""A folder of runs as a page to read: report.md, report.html and figures as PNG."""

from hf_synth.reports.report import write_report

__all__ = ["write_report"]
