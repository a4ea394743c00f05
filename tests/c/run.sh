#!/usr/bin/env bash
# Builds and runs the tests of the kernels: under ASan and UBSan, without vector types, optimised, and
# with the warnings of gcc and clang as errors; with the argument "aarch64", those for that processor
# instead, under qemu.  What is not installed is left out with a notice.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
jobs=$(getconf _NPROCESSORS_ONLN)
widest=avx2 idle=avx512
if grep -qw avx512bw /proc/cpuinfo 2>/dev/null; then widest=avx512 idle=avx2; fi
flags=(-std=gnu11 -ffp-contract=off -Icsrc -Isrc/jacometry/include -Itests/c)
warnings=(-Wall -Wextra -Werror)
# AddressSanitizer sees what the checks left out of UBSan look for, at a third of the compile time.
sanitizers=(-fsanitize=address,undefined -fno-sanitize=null,object-size,pointer-overflow
    -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)

# later COMMAND...: to be run with the others, as many at a time as there are processors.
runs=()
later() { runs+=("$*"); }
run_all() {
    printf '%s\n' "${runs[@]}" | xargs -P "$jobs" -I COMMAND bash -c \
        'said=$(COMMAND 2>&1) && status=0 || status=1; printf "%s\n" "$said"; exit $status'
}

header() { printf '\n-- %s (%d s)\n' "$*" $SECONDS; }

# compile NAME COMPILER FLAGS... -- SOURCES: objects in a folder of that name.
compile() {
    local folder=$build/$1 command=()
    shift
    while [[ $1 != -- ]]; do command+=("$1") && shift; done
    shift
    mkdir -p "$folder"
    printf '%s\0' "$@" | xargs -0 -P "$jobs" -I SOURCE bash -c '
        folder=$1 source=$2
        shift 2
        "$@" -c "$source" -o "$folder/$(basename "$source" .c).o"' compile "$folder" SOURCE \
        "${command[@]}" "${flags[@]}"
}

if [[ ${1:-} == aarch64 ]]; then
    arm=$(command -v aarch64-linux-gnu-gcc || true)
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
    if [[ -z $arm || -z $qemu ]]; then
        echo "NOTICE: no aarch64-linux-gnu-gcc or no qemu-aarch64 here; nothing run for aarch64"
        exit 0
    fi
    header "aarch64"
    compile aarch64 "$arm" -O1 "${warnings[@]}" -- csrc/*.c tests/c/*.c
    "$arm" -static "$build"/aarch64/*.o -lm -o "$build/aarch64/run"
    "$qemu" "$build/aarch64/run"
    header "done"
    exit 0
fi

header "compiling: gcc, AddressSanitizer and UndefinedBehaviorSanitizer, baseline and $widest"
compile sanitized gcc -O0 "${warnings[@]}" "${sanitizers[@]}" -- "csrc/variant_$widest.c" \
    csrc/variant_baseline.c csrc/dispatch.c tests/c/*.c
compile sanitized gcc -O0 -- "csrc/variant_$idle.c"
gcc "${sanitizers[@]}" "$build"/sanitized/*.o -lm -o "$build/sanitized/run"
later "$build/sanitized/run" baseline
later "$build/sanitized/run" "$widest"

header "compiling: gcc without vector types, under the sanitizers"
cp -r "$build/sanitized" "$build/plain"
compile plain gcc -O0 "${warnings[@]}" "${sanitizers[@]}" -DJM_PLAIN_C -- csrc/variant_baseline.c
gcc "${sanitizers[@]}" "$build"/plain/*.o -lm -o "$build/plain/run"
later "$build/plain/run" baseline

# One variant optimised, the one that runs: the others are the same source with other vectors.
header "compiling: gcc -O2 for $widest, warnings as errors"
compile others gcc -O0 "${warnings[@]}" -- csrc/variant_baseline.c "csrc/variant_$idle.c"
compile optimised gcc -O2 "${warnings[@]}" -- "csrc/variant_$widest.c" csrc/dispatch.c tests/c/*.c
gcc "$build"/optimised/*.o "$build"/others/*.o -lm -o "$build/optimised/run"
later "$build/optimised/run"

clang=$(command -v clang-19 || command -v clang || true)
if [[ -n $clang ]]; then
    header "compiling: $clang for $widest, warnings as errors"
    "$clang" "${flags[@]}" "${warnings[@]}" -fsyntax-only csrc/*.c
    # A pragma that asks for unrolling is not obeyed at -O1, which is no defect.
    compile clang "$clang" -O1 "${warnings[@]}" -Wno-pass-failed -- "csrc/variant_$widest.c" \
        csrc/dispatch.c tests/c/*.c
    "$clang" "$build"/clang/*.o "$build"/others/*.o -lm -o "$build/clang/run"
    later "$build/clang/run"
else
    echo "NOTICE: no clang here; its warnings are not checked"
fi

header "running"
run_all
header "done"
