// The one place where the version stands: CMake and the Python package read it from here.
#pragma once

#define TORCH_IIR_VERSION "0.1.0"
