#!/bin/sh
# Stands in for one of PostgreSQL's client programs: tells the version in the file `version` beside it, and otherwise
# behaves as the file `behaviour` beside it says.
here=$(dirname "$0")
if [ "$1" = --version ]; then
    echo "$(basename "$0") (PostgreSQL) $(cat "$here/version")"
    exit 0
fi
. "$here/behaviour"
