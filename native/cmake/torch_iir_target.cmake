# What all of our own targets share, and none of a user's: warnings, sanitizers, and source paths that do not tell where
# the library was built (assertions and STD_TORCH_CHECK print them).
function(torch_iir_target target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic $<$<BOOL:${TORCH_IIR_WERROR}>:-Werror>
                              -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=>)
  get_target_property(type ${target} TYPE)
  if(TORCH_IIR_SANITIZE)
    # -w: under sanitizers, GCC warns of what it could not unroll
    set(flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(${target} PRIVATE ${flags} -w)
    target_link_options(${target} PRIVATE ${flags})
  elseif(type STREQUAL "SHARED_LIBRARY" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${target} PRIVATE LINKER:-z,defs)
  endif()
endfunction()
