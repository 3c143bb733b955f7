"""The report of a fair comparison: verdicts first, then measures, curves and answers side by side."""
