#!/bin/sh
# Runs a compiler and keeps what it says beside the object, as OBJECT.report.
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
"$@" > "$object.report" 2>&1
status=$?
[ $status -eq 0 ] || cat "$object.report"
exit $status
