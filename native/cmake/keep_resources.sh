#!/bin/sh
# keep_resources.sh nvcc … -o OBJECT …: runs it, and writes what ptxas says of the kernels to OBJECT.resources. Of
# messages only the others are shown.
object=
previous=
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.resources"
status=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' "$object.resources" >&2
exit $status
