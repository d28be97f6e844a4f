#!/bin/sh
# Count what the kernels of a program did with Nsight Compute, for counters, the roofline and what holds each kernel.
#
#   examples/record_counters.sh NAME COMMAND...
#   examples/record_counters.sh counted python3 collectors/workloads/dual_encoder.py --iterations 1
#
# writes NAME.ncu-rep and NAME.ncu.csv (the same numbers; it can be read without NVIDIA's ncu-report); then
# `nitro-analyze NAME.sqlite NAME.ncu-rep`, with a trace of the same program. Every kernel is replayed some ten times,
# and all memory that it can reach is saved before, so count one iteration, of the same batch and shapes as in the trace,
# without pinned host memory. Environment:
#
#   NCU            the ncu program, if it is not on PATH
#   CAPTURE_RANGE  if set, only kernels between cudaProfilerStart and cudaProfilerStop are counted
#   MOST_KERNELS   stop counting after so many kernels
#   NCU_OPTIONS    more options of ncu, such as `--kernel-name regex:gemm`
#
# Exit codes: 0 both files are written, 2 wrong usage, 5 a program is missing or failed.

set -eu

fail() {
    echo "record_counters.sh: $1" >&2
    exit 5
}

[ $# -ge 2 ] || { sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1
shift
ncu=${NCU:-ncu}
command -v "$ncu" >/dev/null || fail "ncu is not on PATH; install Nsight Compute or set NCU."

metrics=gpu__time_duration.sum,sm__cycles_elapsed.avg,sm__cycles_active.avg,sm__cycles_active.sum
metrics=$metrics,smsp__issue_active.sum,group:smsp__pcsamp_warp_stall_reasons
metrics=$metrics,dram__bytes_read.sum,dram__bytes_write.sum,lts__t_bytes.sum
for operation in fadd fmul ffma hadd hmul hfma; do
    metrics=$metrics,smsp__sass_thread_inst_executed_op_${operation}_pred_on.sum
done
# A chip has those of its own tensor cores; ncu passes over the others. Only whole types, or they would count twice.
for type in fp16 bf16_dst_fp32 tf32_dst_fp32 int8 fp8; do
    metrics=$metrics,sm__ops_path_tensor_src_$type.sum
done
metrics=$metrics,sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed

# A counter run of an earlier time must not pass for this one.
rm -f "$name.ncu-rep" "$name.ncu.csv"

# The clocks stay as they are in the real run, which the roofs are computed for. Code of kernels, rules and the spread
# over units would make the report a hundred times larger. NCU_OPTIONS is split into words on purpose.
counted=0
# shellcheck disable=SC2086
"$ncu" --clock-control none --target-processes all --force-overwrite --export "$name" \
    --import-sass no --apply-rules no --disable-extra-suffixes \
    --section SpeedOfLight --section LaunchStats --section Occupancy --metrics "$metrics" \
    ${CAPTURE_RANGE:+--profile-from-start off} ${MOST_KERNELS:+--launch-count "$MOST_KERNELS"} ${NCU_OPTIONS:-} \
    "$@" || counted=$?
[ -e "$name.ncu-rep" ] ||
    fail "ncu wrote no report (exit code $counted); without permission to read counters, see ERR_NVGPUCTRPERM."
"$ncu" --import "$name.ncu-rep" --csv --page raw --print-fp >"$name.ncu.csv" ||
    fail "ncu could not print $name.ncu-rep."
echo "$name.ncu-rep $name.ncu.csv"
