# Compiles kernel sources once for each instruction set, as -DTORCH_IIR_ISA=name, into one library that chooses when it
# loads. The names and their order are those of native/cpu/isa.h.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(isas baseline avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(isas neon)
else()
  set(isas baseline)
endif()
if(TORCH_IIR_SANITIZE AND "avx512" IN_LIST isas)  # the source is the same for all: the widest that runs here is enough
  set(isas baseline)
  if(EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo with_avx512 REGEX "avx512vl" LIMIT_COUNT 1)
    if(with_avx512)
      set(isas avx512)
    endif()
  endif()
endif()
if(NOT TORCH_IIR_SANITIZE AND "avx2" IN_LIST isas)
  set(flags_baseline -O2)  # measured to be as fast there, in half the time to compile
endif()
set(flags_avx2 -march=x86-64-v3)
set(flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512)  # GCC and clang prefer 256 bits by themselves

# -ffp-contract=fast   a·b + c is one rounding wherever the machine has it: faster, and more accurate
# -fno-math-errno      nobody reads errno after sqrt
# -fno-trapping-math   nobody reads the floating-point exception flags, so both sides of a choice may be computed
# -Wno-psabi           vectors wider than the baseline's are passed between our own functions only
# -Wno-…uninitialized  GCC 12 warns of its own AVX-512 intrinsics (its bug 105593), and of arrays that unrolled loops fill
# Not -ffast-math or -ffinite-math-only: a NaN in the input has to come out again.
if(TORCH_IIR_SANITIZE)
  set(optimise -O0)  # with optimisation, what the sanitizers insert takes minutes to compile
else()
  set(optimise -O3)
endif()
set(flags_kernels ${optimise} -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wno-psabi
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized -Wno-maybe-uninitialized>)

function(torch_iir_add_kernels target)
  if(TORCH_IIR_SANITIZE)
    target_compile_definitions(${target} PRIVATE TORCH_IIR_ONLY_ISA=${isas})
  endif()
  foreach(isa IN LISTS isas)
    add_library(torch_iir_${isa} OBJECT ${ARGN})
    torch_iir_target(torch_iir_${isa})
    target_compile_definitions(torch_iir_${isa} PRIVATE TORCH_IIR_ISA=${isa})
    target_compile_options(torch_iir_${isa} PRIVATE ${flags_kernels} ${flags_${isa}})
    target_include_directories(torch_iir_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/native/include)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:torch_iir_${isa}>)
  endforeach()
endfunction()
