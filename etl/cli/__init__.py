"""The command line: parse, call, print.  One command per file.

group           commands, imported when called; turns errors into exit codes
exit_codes      the table of exit codes
runtime         what a command needs: settings, logs, output
options         options that several commands share
backfill_input  what --from, --to and --ids of backfill accept
database        the warehouse's URL, starting the embedded server if necessary
run_ended       the last event in the log of a run
tables          results for people
reference       the parts of docs/reference that follow from the program
"""

from etl.cli.group import main

__all__ = ["main"]
