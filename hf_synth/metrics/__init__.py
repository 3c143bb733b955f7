"""One measure per file: a pure function, and an `evaluate.Metric` over it."""
