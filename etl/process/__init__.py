"""This Unix process.

log       text or JSON on standard error
secrets   the one scrubber of secrets
stop      the one request to stop, by signal or thread
progress  a bar on a terminal, else log lines
metrics   the file for Prometheus' textfile collector
"""
