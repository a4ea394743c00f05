#!/usr/bin/env bash
# Builds and runs the tests of the kernels: under ASan and UBSan for the widest instruction set here
# and without vector types, and optimised, with the warnings of gcc and clang as errors.  With the
# argument "every": for every instruction set that runs here, and as clang compiles them too; with
# "aarch64": for that processor instead, under qemu.  What is not installed is left out with a notice.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags=(-std=gnu11 -ffp-contract=off -Icsrc -Isrc/jacometry/include -Itests/c)
warnings=(-Wall -Wextra -Werror)
# AddressSanitizer sees what the checks left out of UBSan look for, at a third of the compile time.
sanitized=(gcc -O0 "${warnings[@]}" -fsanitize=address,undefined
    -fno-sanitize=null,object-size,pointer-overflow -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g1)

here=(baseline)
has() { grep -qw "$1" /proc/cpuinfo 2>/dev/null; }
if has avx2; then here+=(avx2); fi
if has avx512bw; then here+=(avx512); fi
widest=${here[-1]}

# later COMMAND...: to be run by run_all with the others, as many at a time as there are processors.
later() { waiting+=("$*"); }
waiting=()
run_all() {
    printf '\n-- %s (%d s)\n' "$1" $SECONDS
    printf '%s\n' "${waiting[@]}" | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I COMMAND bash -c \
        'said=$(COMMAND 2>&1) && status=0 || status=1; printf "%s" "${said:+$said
}"; exit $status'
    waiting=()
}

# program NAME ISA COMPILER FLAGS...: the tests with the kernels of one instruction set, and what it
# calls of another; in place of the rest stand empty tables.
programs=()
program() {
    local name=$1 isa=$2 folder=$build/$1 source other family
    local units=(csrc/units/*_"$isa".c)
    shift 2
    [[ $isa != avx512 ]] || units+=(csrc/units/chains_avx2.c)
    mkdir -p "$folder"
    for other in baseline avx2 avx512; do
        for family in chains spectra norms moments; do
            [[ " ${units[*]} " == *"/${family}_$other.c "* ]] ||
                echo "const jm_${family}_kernels jm_${family}_$other;"
        done
    done | sed '1i #include "jm_kernels.h"' >"$folder/absent.c"
    for source in "${units[@]}" csrc/dispatch.c tests/c/*.c "$folder/absent.c"; do
        later "$@" "${flags[@]}" -c "$source" -o "$folder/$(basename "$source" .c).o"
    done
    programs+=("$isa $folder $*")
}

if [[ ${1:-} == aarch64 ]]; then
    arm=$(command -v aarch64-linux-gnu-gcc || true)
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
    if [[ -z $arm || -z $qemu ]]; then
        echo "NOTICE: no aarch64-linux-gnu-gcc or no qemu-aarch64 here; nothing run for aarch64"
        exit 0
    fi
    program aarch64 baseline "$arm" -O1 -static "${warnings[@]}"
else
    qemu=
    clang=$(command -v clang-19 || command -v clang || true)
    program sanitized "$widest" "${sanitized[@]}"
    program optimised "$widest" gcc -O2 "${warnings[@]}"
    program plain baseline "${sanitized[@]}" -DJM_PLAIN_C
    if [[ -n $clang ]]; then
        later "$clang" "${flags[@]}" "${warnings[@]}" -fsyntax-only csrc/dispatch.c csrc/units/*.c
    else
        echo "NOTICE: no clang here; its warnings are not checked"
    fi
    if [[ ${1:-} == every ]]; then
        for isa in "${here[@]}"; do
            [[ $isa == "$widest" ]] || program "sanitized-$isa" "$isa" "${sanitized[@]}"
            # A pragma that asks for unrolling is not obeyed at -O1, which is no defect.
            [[ -z $clang ]] ||
                program "clang-$isa" "$isa" "$clang" -O1 "${warnings[@]}" -Wno-pass-failed
        done
    fi
fi

run_all "compiling"
for line in "${programs[@]}"; do
    read -r isa folder compiler <<<"$line"
    $compiler "$folder"/*.o -lm -o "$folder/run"
    later $qemu "$folder/run" "$isa"
done
run_all "running"
printf '\n-- done (%d s)\n' $SECONDS
