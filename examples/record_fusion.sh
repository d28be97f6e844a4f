#!/bin/sh
# Record the same work run one after the other, in streams and fused, for `compare`.
#
#   examples/record_fusion.sh [FOLDER [ROUNDS [PROGRAM OPTION...]]]
#   nitro-analyze compare --before "FOLDER/sequential_*.sqlite" --after "FOLDER/fused_*.sqlite"
#
# writes FOLDER/WAY_ROUND.nsys-rep and .sqlite (FOLDER is fusion, ROUNDS 3 unless given). The ways take turns, so that what
# drifts meets all of them. The options go to the program; with --help there they are listed. Environment:
#
#   PROGRAM           fused_pair.py, one pair of kernels, or fused_encoder.py, a model (fused_pair.py beside this)
#   WAYS              what to record ("sequential streams fused"; `elastic` is one more of fused_pair.py)
#   NSYS              the nsys program, if it is not on PATH
#   PYTHON            a Python with PyTorch, cuda.core and NVRTC (python3)
#   GPU_METRICS       devices whose metrics are sampled (all); none, where the driver permits it to root only
#   CUDA_GRAPH_TRACE  graph or node: record a CUDA graph as one operation, or each of its kernels (node)
#   QDSTRM_IMPORTER   the QdstrmImporter program, for an nsys that leaves its reports as NAME.qdstrm
#
# Exit codes: 0 the traces are written, 2 wrong usage, 5 a program is missing or failed.

set -eu

fail() {
    echo "record_fusion.sh: $1" >&2
    exit 5
}

usage() {
    sed -n '2,18s/^# \{0,1\}//p' "$0"
}

convert() {
    if [ ! -e "$1.nsys-rep" ] && [ -e "$1.qdstrm" ]; then
        [ -n "${QDSTRM_IMPORTER:-}" ] ||
            fail "nsys left $1.qdstrm unconverted; set QDSTRM_IMPORTER to the QdstrmImporter beside it."
        "$QDSTRM_IMPORTER" -i "$1.qdstrm" -o "$1.nsys-rep" || fail "$QDSTRM_IMPORTER could not convert $1.qdstrm."
    fi
    [ -e "$1.nsys-rep" ] || fail "nsys profile wrote no report $1.nsys-rep."
    "$nsys" export --type=sqlite --force-overwrite=true --output="$1.sqlite" "$1.nsys-rep" ||
        fail "nsys could not export $1.nsys-rep."
    echo "$1.sqlite"
}

case ${1:-} in
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
esac
folder=${1:-fusion}
[ $# -eq 0 ] || shift
rounds=${1:-3}
[ $# -eq 0 ] || shift
case $rounds in
    *[!0-9]* | 0*)
        echo "record_fusion.sh: $rounds is no number of rounds; give 1 or more after the folder." >&2
        exit 2
        ;;
esac
here=$(dirname "$0")
python=${PYTHON:-python3}
nsys=${NSYS:-nsys}
ways=${WAYS:-sequential streams fused}
program=${PROGRAM:-$here/fused_pair.py}
PYTHONPATH=$here/../src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
command -v "$nsys" >/dev/null || fail "nsys is not on PATH; install Nsight Systems or set NSYS."
command -v "$python" >/dev/null || fail "$python is not on PATH; set PYTHON to a Python with PyTorch."
mkdir -p "$folder" || fail "$folder cannot be made; choose another folder."

names=
for round in $(seq "$rounds"); do
    for way in $ways; do
        name=$folder/${way}_$round
        names="$names $name"
        # A file of an earlier recording must not pass for this one's.
        rm -f "$name.qdstrm" "$name.nsys-rep" "$name.sqlite"
        # OS runtime tracing (-t osrt) stays off: together with GPU metrics it has hung programs.
        "$nsys" profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --cuda-memory-usage=true \
            --cuda-graph-trace="${CUDA_GRAPH_TRACE:-node}" \
            --gpu-metrics-devices="${GPU_METRICS:-all}" --gpu-metrics-frequency=10000 \
            --capture-range=cudaProfilerApi --capture-range-end=stop \
            --force-overwrite=true --output="$name" \
            "$python" "$program" "$@" --way "$way" ||
            echo "record_fusion.sh: nsys profile ended with exit code $? for $name." >&2
    done
done

# One trace that failed does not take the others along.
status=0
for name in $names; do
    ( convert "$name" ) || status=$?
done
exit "$status"
