"""This Unix process.

log       text or JSON on standard error; log_context: fields of all lines of a part of the program
secrets   the one scrubber of secrets
stop      the one request to stop, by signal or thread
progress  a bar on a terminal, else log lines
metrics   the file for Prometheus' textfile collector
whole_file  writes a file atomically
"""
