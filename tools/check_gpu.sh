#!/usr/bin/env bash
# Builds the CUDA library, tests it and measures it, on a machine with an NVIDIA GPU, nvcc, CMake, ninja, pybind11, and a
# Python that has torch (2.11 or newer, with CUDA), numpy, scipy and pytest. Nothing is downloaded.
#
#   tools/check_gpu.sh [--out FOLDER] [STAGE …]     stages: build test sanitize bench report; without any, all of them
#
# Each stage is stopped after its share of 25 minutes, so that a kernel that hangs ends it. What was found lies in FOLDER
# (build/gpu/out): gpu.json and gpu.md, the logs, JUnit's file. PYTHON names another interpreter than python3.
set -uo pipefail
cd "$(dirname "$0")/.."
self=$PWD/tools/$(basename "$0")

python=${PYTHON:-python3}
build=$PWD/build/gpu
out=${TORCH_IIR_CHECK_OUT:-$build/out}
if [ "${1:-}" = --out ]; then
  out=$2
  shift 2
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
site=$build/site
stages=${*:-build test sanitize bench report}
failed=0

# stage NAME SECONDS COMMAND…: runs it, notes how it ended and how long it took.
stage() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  echo "== $name (at most $limit s)"
  timeout --kill-after=20 "$limit" "$@" 2>&1 | tee "$out/$name.log"
  code=${PIPESTATUS[0]}
  echo "{\"stage\": \"$name\", \"code\": $code, \"seconds\": $((SECONDS - start))}" >"$out/$name.stage.json"
  [ "$code" -eq 0 ] || failed=1
  echo "== $name: exit $code after $((SECONDS - start)) s"
}

build_all() {
  # As into site-packages, in a folder of its own: SKBUILD is what pip's build sets.
  cmake -S . -B "$build/cmake" -G Ninja -DSKBUILD=ON -DCMAKE_BUILD_TYPE=Release -DTORCH_IIR_CUDA=ON \
    -DTORCH_IIR_WERROR=ON -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
    -DTORCH_IIR_TORCH_DIR="$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
    cmake --build "$build/cmake" &&
    cmake --install "$build/cmake" --prefix "$site" >/dev/null &&
    cp -r torch_iir native/python/torch_iir_native "$site/" &&
    "$python" -c 'import torch, torch_iir; assert torch.cuda.is_available(); print(torch_iir.build_info())'
}

run_tests() {
  cd tests && "$python" -m pytest -p no:cacheprovider -o faulthandler_timeout=120 --junitxml="$out/tests.xml" -q test_cuda.py
}

# The tools slow kernels down a hundredfold: small shapes only.
sanitize() {
  local tool code=0
  for tool in memcheck racecheck synccheck; do
    echo "-- $tool"
    (cd tests && timeout 95 compute-sanitizer --tool "$tool" --error-exitcode 9 --launch-timeout 60 \
      "$python" -m pytest -p no:cacheprovider -q test_cuda.py \
      -k "test_equals_its_reference or test_cut_anywhere or test_bank") || { code=1 && echo "-- $tool: exit $?"; }
  done
  return $code
}

# PYTHONSAFEPATH: the sources in this folder are not the package.
export TORCH_IIR_CHECK_OUT=$out PYTHONPATH=$site:$PWD/tests:$PWD PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
if [ "${1:-}" = --run ]; then  # a stage, called by timeout, which knows no functions
  "$2"
  exit
fi
for name in $stages; do
  case $name in
    build) stage build 420 "$self" --run build_all ;;
    test) stage test 420 "$self" --run run_tests ;;
    sanitize) stage sanitize 300 "$self" --run sanitize ;;
    bench) stage bench 300 "$python" -m bench.cuda "$out/bench.json" ;;
    report) "$python" tools/gpu_report.py "$out" ;;
    *) echo "no stage $name" && exit 2 ;;
  esac
done
exit $failed
