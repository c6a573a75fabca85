#!/bin/sh
# Runs a CUDA compile; what ptxas says of registers and spills goes to <object>.ptxas instead of the
# terminal, where tests/core/gpu/budget_test.cmake reads it:
#   ptxas_log.sh nvcc ... -o object.o
object=
previous=
for word in "$@"; do
  [ "$previous" = -o ] && object=$word
  previous=$word
done
"$@" 2> "$object.ptxas"
code=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' -e '^$' "$object.ptxas" >&2
exit $code
