#!/bin/sh
# Record the dual-encoder workload with Nsight Systems and export the trace to SQLite.
#
#   examples/record_dual_encoder.sh [NAME [WORKLOAD OPTION...]]
#
# writes NAME.nsys-rep and NAME.sqlite (NAME is dual_encoder unless given). The options go to
# collectors/workloads/dual_encoder.py; with --help there they are listed. Environment:
#
#   NSYS              the nsys program, if it is not on PATH
#   PYTHON            a Python with PyTorch and torchvision (python3)
#   GPU_METRICS       devices whose metrics are sampled (all); none, where the driver permits it to root only
#   CUDA_GRAPH_TRACE  graph or node: record a CUDA graph as one operation, or each of its kernels
#   QDSTRM_IMPORTER   the QdstrmImporter program, for an nsys that leaves its report as NAME.qdstrm
#
# Exit codes: 0 the trace is written, 5 a program is missing or failed.

set -eu

fail() {
    echo "record_dual_encoder.sh: $1" >&2
    exit 5
}

name=${1:-dual_encoder}
[ $# -eq 0 ] || shift
workload=$(dirname "$0")/../collectors/workloads/dual_encoder.py
python=${PYTHON:-python3}
nsys=${NSYS:-nsys}
command -v "$nsys" >/dev/null || fail "nsys is not on PATH; install Nsight Systems or set NSYS."
command -v "$python" >/dev/null || fail "$python is not on PATH; set PYTHON to a Python with PyTorch."

# A file of an earlier recording must not pass for this one's.
rm -f "$name.qdstrm" "$name.nsys-rep" "$name.sqlite"

# OS runtime tracing (-t osrt) stays off: together with GPU metrics it has hung the workload.
recorded=0
"$nsys" profile \
    --trace=cuda,nvtx --sample=none --cpuctxsw=none --cuda-memory-usage=true \
    ${CUDA_GRAPH_TRACE:+--cuda-graph-trace="$CUDA_GRAPH_TRACE"} \
    --gpu-metrics-devices="${GPU_METRICS:-all}" --gpu-metrics-frequency=10000 \
    --capture-range=cudaProfilerApi --capture-range-end=stop \
    --force-overwrite=true --output="$name" \
    "$python" "$workload" "$@" || recorded=$?

if [ -e "$name.nsys-rep" ]; then
    [ "$recorded" -eq 0 ] || fail "nsys profile ended with exit code $recorded; $name.nsys-rep may be incomplete."
elif [ -e "$name.qdstrm" ]; then
    [ -n "${QDSTRM_IMPORTER:-}" ] ||
        fail "nsys left $name.qdstrm unconverted; set QDSTRM_IMPORTER to the QdstrmImporter beside it."
    [ "$recorded" -eq 0 ] || echo "record_dual_encoder.sh: nsys profile ended with exit code $recorded." >&2
    "$QDSTRM_IMPORTER" -i "$name.qdstrm" -o "$name.nsys-rep" ||
        fail "$QDSTRM_IMPORTER could not convert $name.qdstrm."
else
    fail "nsys profile wrote no report (exit code $recorded)."
fi

"$nsys" export --type=sqlite --force-overwrite=true --output="$name.sqlite" "$name.nsys-rep" ||
    fail "nsys could not export $name.nsys-rep."
echo "$name.sqlite"
