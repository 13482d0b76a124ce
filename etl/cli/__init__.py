"""The command line: parse, call, print.  What is done is done elsewhere.

group        commands, loaded when called; the only place that turns errors into exit codes
options      options that several commands share
runtime      what a command needs: settings, logs, output
database     the warehouse's address, the embedded server started if need be
tables       results for people
"""

from etl.cli.group import main

__all__ = ["main"]
