#!/bin/sh
# The nightly run.  Only what a later try may mend is tried again: after 5, 15 and 45 minutes.
# The label is that of the night: a retry leaves out the accounts that are done.
label="nightly $(date -u +%F)"
for pause in 300 900 2700 0; do
    kaltura-etl sync --all --quiet --wait 30m --run-label "$label"
    code=$?
    case $code in
    69 | 74 | 75) sleep "$pause" ;;
    *) exit "$code" ;;
    esac
done
exit "$code"
