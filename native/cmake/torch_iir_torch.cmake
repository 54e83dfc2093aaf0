# torch_iir::torch_cpu: headers and SONAME of the torch that the package is being installed beside.
# find_package(Torch) would look for CUDA, MKL and more that the stable ABI does not need.
find_package(Python REQUIRED COMPONENTS Interpreter)
if(NOT TORCH_IIR_TORCH_DIR)
  execute_process(COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/find_torch.py
                  OUTPUT_VARIABLE found ERROR_VARIABLE error RESULT_VARIABLE result OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${error}")
  endif()
  # Not cached: another torch may stand there at the next configuration.
  set(TORCH_IIR_TORCH_DIR "${found}")
endif()
message(STATUS "torch: ${TORCH_IIR_TORCH_DIR}")

# 2.11: the oldest torch that the build runs on, whichever torch it is built beside.
set(torch_target_version 0x020b000000000000ULL)

# Not SHARED IMPORTED: what is installed would name that target as one that a program must have.
add_library(torch_iir::torch_cpu INTERFACE IMPORTED)
target_link_libraries(torch_iir::torch_cpu INTERFACE ${TORCH_IIR_TORCH_DIR}/lib/libtorch_cpu.so)
target_include_directories(torch_iir::torch_cpu SYSTEM INTERFACE ${TORCH_IIR_TORCH_DIR}/include)
target_compile_definitions(torch_iir::torch_cpu INTERFACE TORCH_TARGET_VERSION=${torch_target_version})
target_compile_options(torch_iir::torch_cpu INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${TORCH_IIR_TORCH_DIR}/include/=>)
