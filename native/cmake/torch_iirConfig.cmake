# find_package(torch_iir CONFIG [COMPONENTS …]) gives one target for each component that was built:
#
#   torch_iir::core   the kernels
#   torch_iir::cuda   the CUDA kernels
#   torch_iir::ops    the operators, registered with torch as soon as a program that links this starts
#
# core and cuda need no torch. A program with ops has a torch of its own, 2.11 or later; this file does not look for it:
# one library serves all of them, and find_package(Torch), which wants a CUDA toolkit where torch has CUDA, is not the
# only way to link it. Where the program has called that, ops brings torch with it.
foreach(_torch_iir_component core cuda ops)
  set(_torch_iir_file ${CMAKE_CURRENT_LIST_DIR}/torch_iir_${_torch_iir_component}.cmake)
  if(EXISTS ${_torch_iir_file})
    include(${_torch_iir_file})
    set(torch_iir_${_torch_iir_component}_FOUND TRUE)
  endif()
endforeach()

if(TARGET torch_iir::ops)
  # No program calls a function of this library: a linker that drops what nobody calls (--as-needed, the default of some
  # systems) must be told to keep it.
  set_property(TARGET torch_iir::ops PROPERTY INTERFACE_LINK_LIBRARIES
    "-Wl,--push-state,--no-as-needed,\"$<TARGET_FILE:torch_iir::ops>\",--pop-state" $<TARGET_NAME_IF_EXISTS:torch>)
endif()

foreach(_torch_iir_component IN LISTS torch_iir_FIND_COMPONENTS)
  if(torch_iir_FIND_REQUIRED_${_torch_iir_component} AND NOT torch_iir_${_torch_iir_component}_FOUND)
    set(torch_iir_FOUND FALSE)
    set(torch_iir_NOT_FOUND_MESSAGE
      "torch_iir has no component \"${_torch_iir_component}\". There are core, and where they were built cuda and ops.")
  endif()
endforeach()
unset(_torch_iir_component)
unset(_torch_iir_file)
