include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(TORCH_IIR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TORCH_IIR_CUDA is ON, but there is no CUDA compiler: put nvcc on PATH, or set CUDACXX")
  endif()
  message(STATUS "CUDA: no nvcc found, the CUDA kernels are not built")
  return()
endif()
# Compute capabilities. One is enough to develop with; a release has machine code for all that are about, and PTX for
# those to come: -DCMAKE_CUDA_ARCHITECTURES="80-real;86-real;89-real;90-real;100-real;100-virtual"
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90)
endif()
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)  # words of 128 bits, C++20
  if(TORCH_IIR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TORCH_IIR_CUDA is ON, and needs nvcc 12.4 or later: ${CMAKE_CUDA_COMPILER} is "
                        "${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old, 12.4 is needed; the CUDA kernels are not built")
  return()
endif()
find_package(CUDAToolkit REQUIRED)

# The kernels: no torch, as in core.
#
# -std=c++20   by its name, because CMake 3.25 does not know that nvcc has it
# -Xptxas -v   registers, stack and spills of each kernel: keep_resources.sh writes them beside the object
add_library(torch_iir_cuda SHARED ${cuda_sources})
torch_iir_target(torch_iir_cuda)
target_compile_options(torch_iir_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
  -std=c++20 -Xptxas=-v -Xcompiler=-Wall,-Wextra,-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=
  $<$<BOOL:${TORCH_IIR_WERROR}>:-Werror=all-warnings -Xcompiler=-Werror>>)
target_compile_features(torch_iir_cuda INTERFACE cxx_std_20)
set(launcher sh ${CMAKE_CURRENT_LIST_DIR}/keep_resources.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})
set_target_properties(torch_iir_cuda PROPERTIES CUDA_COMPILER_LAUNCHER "${launcher}")
find_program(TORCH_IIR_CXXFILT NAMES cu++filt c++filt HINTS ${CUDAToolkit_BIN_DIR})
set(cuda_resources ${PROJECT_BINARY_DIR}/cuda_resources.txt)
add_custom_command(TARGET torch_iir_cuda POST_BUILD VERBATIM COMMAND_EXPAND_LISTS
  COMMAND ${CMAKE_COMMAND} -DTABLE=${cuda_resources} -DCXXFILT=${TORCH_IIR_CXXFILT}
          -P ${CMAKE_CURRENT_LIST_DIR}/cuda_resources.cmake $<TARGET_OBJECTS:torch_iir_cuda>)
target_include_directories(torch_iir_cuda PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/native/include>
                                                 $<INSTALL_INTERFACE:${core_include}>)
target_compile_definitions(torch_iir_cuda PRIVATE TORCH_IIR_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES}")
target_link_libraries(torch_iir_cuda PRIVATE CUDA::cudart_static)
torch_iir_component(cuda ${core_lib})

if(TORCH_IIR_TORCH)
  # The libtorch_cuda of torch, or, where torch is a CPU build, an empty one of that name: DT_NEEDED is written either
  # way, and the headers of every torch declare the CUDA functions.
  set(torch_cuda ${TORCH_IIR_TORCH_DIR}/lib/libtorch_cuda.so)
  if(NOT EXISTS ${torch_cuda})
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/empty.cpp CONTENT "")
    add_library(torch_cuda_stand_in SHARED ${PROJECT_BINARY_DIR}/empty.cpp)
    set_target_properties(torch_cuda_stand_in PROPERTIES OUTPUT_NAME torch_cuda)
    add_dependencies(torch_iir_cuda torch_cuda_stand_in)
    set(torch_cuda ${PROJECT_BINARY_DIR}/libtorch_cuda.so)
  endif()
  add_library(torch_iir::torch_cuda SHARED IMPORTED)
  set_target_properties(torch_iir::torch_cuda PROPERTIES IMPORTED_LOCATION ${torch_cuda} IMPORTED_SONAME libtorch_cuda.so)

  add_library(torch_iir_ops_cuda SHARED ${ops_of_cuda})
  torch_iir_target(torch_iir_ops_cuda)
  target_compile_definitions(torch_iir_ops_cuda PRIVATE USE_CUDA TORCH_IIR_DEVICE_CUDA)
  target_include_directories(torch_iir_ops_cuda PRIVATE native/ops)
  target_include_directories(torch_iir_ops_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(torch_iir_ops_cuda PRIVATE
    torch_iir_cuda torch_iir_ops torch_iir::core torch_iir::torch_cpu -Wl,--no-as-needed torch_iir::torch_cuda -Wl,--as-needed)
  set_target_properties(torch_iir_ops_cuda PROPERTIES INSTALL_RPATH "${ops_rpath}")
  if(TARGET torch_cuda_stand_in)
    # What the stand-in lacks is in the real one.
    get_target_property(options torch_iir_ops_cuda LINK_OPTIONS)
    list(REMOVE_ITEM options LINKER:-z,defs)
    set_target_properties(torch_iir_ops_cuda PROPERTIES LINK_OPTIONS "${options}")
  endif()
  install(TARGETS torch_iir_ops_cuda DESTINATION ${ops_lib})
endif()
