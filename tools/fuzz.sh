#!/bin/sh
# Runs the fuzz targets below a directory for a while each: fuzz.sh DURATION DIRECTORY [TARGET].
set -eu
cd "$(dirname "$0")/.."
duration=$1 directory=$2 only=${3:-Fuzz[A-Za-z0-9_]*}

fuzz() {
	if out=$(go test -run '^$' -fuzz "^$1\$" -fuzztime "$duration" "$2" 2>&1); then
		echo "$out" | tail -n 2
		return
	fi
	echo "$out"
	# Go's fuzzer may be late to stop its workers, and calls that a failure (golang/go#75804).
	case $out in
	*"Failing input written"*) return 1 ;;
	*"context deadline exceeded"*) ;;
	*) return 1 ;;
	esac
}

grep -rl --include='*_test.go' '^func Fuzz' "$directory" | sort | while read -r file; do
	for target in $(sed -n "s/^func \($only\)(.*/\1/p" "$file"); do
		echo "$target in $(dirname "$file")"
		fuzz "$target" "./$(dirname "$file")"
	done
done
