# What all of our own targets share, and none of a user's: warnings, sanitizers, and source paths that do not tell where
# the library was built (assertions and STD_TORCH_CHECK print them).
function(torch_iir_target target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic $<$<BOOL:${TORCH_IIR_WERROR}>:-Werror>
                              -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=>)
  if(TORCH_IIR_SANITIZE)
    set(flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(${target} PRIVATE ${flags})
    target_link_options(${target} PRIVATE ${flags})
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY" AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT TORCH_IIR_SANITIZE)
    target_link_options(${target} PRIVATE LINKER:-z,defs)
  endif()
endfunction()
