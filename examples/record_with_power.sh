#!/bin/sh
# Record a program with Nsight Systems and its power beside it, for energy by phase.
#
#   examples/record_with_power.sh NAME COMMAND...
#   examples/record_with_power.sh steady python3 collectors/workloads/steady_phases.py
#
# writes NAME.nsys-rep, NAME.sqlite and NAME.power.log; then `nitro-analyze NAME.sqlite NAME.power.log`. On a Jetson the log
# is that of tegrastats, each line with the time in ns in front (run as root to see clocks); elsewhere that of nvidia-smi.
# Let the program be idle for some seconds before and after its work. Environment:
#
#   NSYS                   the nsys program, if it is not on PATH
#   INTERVAL_MS            time between records (20 for nvidia-smi, 50 for tegrastats)
#   GPU_METRICS            devices whose metrics are sampled too (none); `all` needs a driver that permits it
#   GPU_METRICS_FREQUENCY  samples of them in a second (10000)
#   CAPTURE_RANGE          if set, nsys records from cudaProfilerStart to cudaProfilerStop only
#   QDSTRM_IMPORTER        the QdstrmImporter program, for an nsys that leaves its report as NAME.qdstrm
#
# Exit codes: 0 trace and log are written, 2 wrong usage, 5 a program is missing or failed.

set -eu

fail() {
    echo "record_with_power.sh: $1" >&2
    exit 5
}

[ $# -ge 2 ] || { sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1
shift
nsys=${NSYS:-nsys}
command -v "$nsys" >/dev/null || fail "nsys is not on PATH; install Nsight Systems or set NSYS."

# Files of an earlier recording must not pass for this one's.
rm -f "$name.qdstrm" "$name.nsys-rep" "$name.sqlite" "$name.power.log"

if command -v tegrastats >/dev/null; then
    tegrastats --interval "${INTERVAL_MS:-50}" | while IFS= read -r line; do
        printf '%s\t%s\n' "$(date +%s%N)" "$line"
    done >"$name.power.log" &
    logger=$!
    # The loop ends when tegrastats does.
    stop_log() { tegrastats --stop >/dev/null 2>&1 || true; kill "$logger" 2>/dev/null || true; }
elif command -v nvidia-smi >/dev/null; then
    columns=timestamp,index,pci.bus_id,power.draw.instant,power.draw.average,utilization.gpu,utilization.memory
    columns=$columns,clocks.sm,clocks.mem,temperature.gpu,clocks_event_reasons.active
    nvidia-smi --query-gpu="$columns" --format=csv -lms "${INTERVAL_MS:-20}" >"$name.power.log" &
    logger=$!
    stop_log() { kill "$logger" 2>/dev/null || true; }
else
    fail "neither tegrastats nor nvidia-smi is on PATH; nothing here measures power."
fi
trap stop_log EXIT
sleep 1

recorded=0
# OS runtime tracing (-t osrt) stays off: together with GPU metrics it has hung the workload.
"$nsys" profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --cuda-memory-usage=true \
    ${GPU_METRICS:+--gpu-metrics-devices="$GPU_METRICS" --gpu-metrics-frequency="${GPU_METRICS_FREQUENCY:-10000}"} \
    ${CAPTURE_RANGE:+--capture-range=cudaProfilerApi --capture-range-end=stop} \
    --force-overwrite=true --output="$name" "$@" || recorded=$?
sleep 1
stop_log
trap - EXIT

if [ ! -e "$name.nsys-rep" ] && [ -e "$name.qdstrm" ]; then
    [ -n "${QDSTRM_IMPORTER:-}" ] ||
        fail "nsys left $name.qdstrm unconverted; set QDSTRM_IMPORTER to the QdstrmImporter beside it."
    "$QDSTRM_IMPORTER" -i "$name.qdstrm" -o "$name.nsys-rep" || fail "$QDSTRM_IMPORTER could not convert $name.qdstrm."
fi
[ -e "$name.nsys-rep" ] || fail "nsys profile wrote no report (exit code $recorded)."
"$nsys" export --type=sqlite --force-overwrite=true --output="$name.sqlite" "$name.nsys-rep" ||
    fail "nsys could not export $name.nsys-rep."
[ -s "$name.power.log" ] || fail "the power log is empty; tegrastats or nvidia-smi failed, so run it alone to see why."
echo "$name.sqlite $name.power.log"
