#!/usr/bin/env bash
# Builds and runs the tests of the kernels: under ASan and UBSan, without vector types, for aarch64, and
# with the warnings of gcc and clang as errors.  What is not installed is left out with a notice.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
jobs=$(getconf _NPROCESSORS_ONLN)
tests=(tests/c/*.c)
flags=(-std=gnu11 -ffp-contract=off -Icsrc -Isrc/jacometry/include -Itests/c)
warnings=(-Wall -Wextra -Werror)
sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)

header() { printf '\n-- %s\n' "$*"; }

# compile NAME COMPILER FLAGS...: every source into a folder of that name.
compile() {
    local folder=$build/$1
    shift
    mkdir "$folder"
    printf '%s\0' csrc/*.c "${tests[@]}" | xargs -0 -P "$jobs" -I SOURCE bash -c '
        folder=$1 source=$2
        shift 2
        "$@" -c "$source" -o "$folder/$(basename "$source" .c).o"' compile "$folder" SOURCE \
        "$@" "${flags[@]}"
}

header "gcc, AddressSanitizer and UndefinedBehaviorSanitizer"
compile sanitized gcc -O0 "${warnings[@]}" "${sanitizers[@]}"
gcc "${sanitizers[@]}" "$build"/sanitized/*.o -lm -o "$build/sanitized/run"
"$build/sanitized/run"

header "gcc -O3, warnings as errors"
compile optimised gcc -O3 "${warnings[@]}"
gcc "$build"/optimised/*.o -lm -o "$build/optimised/run"
"$build/optimised/run"

header "gcc without vector types, under the sanitizers"
mkdir "$build/plain"
cp "$build"/sanitized/*.o "$build/plain"
gcc -O0 "${warnings[@]}" "${sanitizers[@]}" "${flags[@]}" -DJM_PLAIN_C -c csrc/variant_baseline.c \
    -o "$build/plain/variant_baseline.o"
gcc "${sanitizers[@]}" "$build"/plain/*.o -lm -o "$build/plain/run"
"$build/plain/run" baseline

clang=$(command -v clang-19 || command -v clang || true)
if [[ -n $clang ]]; then
    header "$clang, warnings as errors"
    compile clang "$clang" -O2 "${warnings[@]}"
    "$clang" "$build"/clang/*.o -lm -o "$build/clang/run"
    "$build/clang/run"
else
    echo "NOTICE: no clang here; its warnings are not checked"
fi

arm=$(command -v aarch64-linux-gnu-gcc || true)
if [[ -n $arm ]]; then
    header "aarch64"
    compile aarch64 "$arm" -O2 "${warnings[@]}"
    "$arm" -static "$build"/aarch64/*.o -lm -o "$build/aarch64/run"
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
    if [[ -n $qemu ]]; then
        "$qemu" "$build/aarch64/run"
    else
        echo "NOTICE: no qemu-aarch64 here; the aarch64 kernels are compiled but not run"
    fi
else
    echo "NOTICE: no aarch64-linux-gnu-gcc here; the kernels are not compiled for aarch64"
fi
