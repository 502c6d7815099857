// The result of launching a kernel; csrc/binding turns a failure into an exception that names the kernel.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

namespace elastic::cuda {

struct LaunchResult {
  cudaError_t error = cudaSuccess;
  std::string_view kernel = {};  // the kernel this is about; of several launches the last one tried

  explicit operator bool() const { return error == cudaSuccess; }
};

}  // namespace elastic::cuda
