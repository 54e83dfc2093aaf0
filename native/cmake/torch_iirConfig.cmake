# find_package(torch_iir CONFIG) → torch_iir::core, the kernels without torch.
include(${CMAKE_CURRENT_LIST_DIR}/torch_iirTargets.cmake)
