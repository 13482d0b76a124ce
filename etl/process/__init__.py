"""This process: log, secrets, signals, progress, metrics."""
