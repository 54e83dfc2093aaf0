include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(TORCH_IIR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TORCH_IIR_CUDA is ON, but there is no CUDA compiler: put nvcc on PATH, or set CUDACXX")
  endif()
  message(STATUS "CUDA: no nvcc found, the CUDA kernels are not built")
  return()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90)
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 does not know that nvcc has C++20
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit REQUIRED)

# The kernels: no torch, as in core.
add_library(torch_iir_cuda SHARED native/cuda/architectures.cu)
torch_iir_target(torch_iir_cuda)
target_include_directories(torch_iir_cuda PUBLIC ${PROJECT_SOURCE_DIR}/native/include)
target_compile_definitions(torch_iir_cuda PRIVATE TORCH_IIR_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES}")
target_link_libraries(torch_iir_cuda PRIVATE CUDA::cudart_static)
install(TARGETS torch_iir_cuda DESTINATION ${core_lib})

if(TORCH_IIR_TORCH)
  # The libtorch_cuda of torch, or, where torch is a CPU build, an empty one of that name: DT_NEEDED is written either
  # way, and the headers of every torch declare the CUDA functions.
  torch_iir_torch_library(torch_cuda)
  if(NOT EXISTS ${TORCH_IIR_TORCH_DIR}/lib/libtorch_cuda.so)
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/empty.cpp CONTENT "")
    add_library(torch_cuda_stand_in SHARED ${PROJECT_BINARY_DIR}/empty.cpp)
    set_target_properties(torch_cuda_stand_in PROPERTIES OUTPUT_NAME torch_cuda)
    add_dependencies(torch_iir_cuda torch_cuda_stand_in)
    set_target_properties(torch_iir::torch_cuda PROPERTIES
      IMPORTED_LOCATION ${PROJECT_BINARY_DIR}/libtorch_cuda.so)
  endif()

  add_library(torch_iir_ops_cuda SHARED native/cuda/registration.cpp)
  torch_iir_target(torch_iir_ops_cuda)
  target_compile_definitions(torch_iir_ops_cuda PRIVATE USE_CUDA)
  target_include_directories(torch_iir_ops_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(torch_iir_ops_cuda PRIVATE
    torch_iir_cuda torch_iir::torch_cpu -Wl,--no-as-needed torch_iir::torch_cuda -Wl,--as-needed)
  set_target_properties(torch_iir_ops_cuda PROPERTIES INSTALL_RPATH "$ORIGIN/../../${core_lib}")
  if(TARGET torch_cuda_stand_in)
    # What the stand-in lacks is in the real one.
    get_target_property(options torch_iir_ops_cuda LINK_OPTIONS)
    list(REMOVE_ITEM options LINKER:-z,defs)
    set_target_properties(torch_iir_ops_cuda PROPERTIES LINK_OPTIONS "${options}")
  endif()
  install(TARGETS torch_iir_ops_cuda DESTINATION torch_iir/lib)
endif()
