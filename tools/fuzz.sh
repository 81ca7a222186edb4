#!/bin/sh
# Runs the fuzz targets below a directory for a while each, two at a time:
# fuzz.sh DURATION DIRECTORY [TARGET].
set -eu

if [ "$1" = one ]; then # fuzz.sh one DURATION FILE:TARGET
	package=./$(dirname "${3%:*}") target=${3##*:}
	if out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$2" -parallel 1 "$package" 2>&1); then
		echo "$target: $(echo "$out" | tail -n 1)"
		exit
	fi
	echo "$out"
	# Go's fuzzer may be late to stop its workers, and calls that a failure (golang/go#75804).
	case $out in
	*"Failing input written"*) exit 1 ;;
	*"context deadline exceeded"*) exit 0 ;;
	*) exit 1 ;;
	esac
fi

cd "$(dirname "$0")/.."
grep -ro --include='*_test.go' "^func ${3:-Fuzz[A-Za-z0-9_]*}(" "$2" | sed 's/func //; s/($//' | sort |
	xargs -P 2 -n 1 tools/fuzz.sh one "$1"
