// Where an op runs. Contents (ids, offsets) are checked only for tensors that the CPU kernels take: on a
// device the host would have to wait. Built with ELASTIC_CUDA_ON_CPU (tests/cuda_on_cpu), the same ops are
// registered as torch.ops.elastic_cuda_on_cpu and run the CUDA kernels on host memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "binding/checks.h"

#ifdef ELASTIC_WITH_CUDA
#include "cuda/launch_result.h"
#ifndef ELASTIC_CUDA_ON_CPU
#include <c10/cuda/CUDAStream.h>
#endif
#endif

namespace elastic {

// Whether the CUDA kernels take this tensor.
inline bool runs_on_cuda(const at::Tensor& tensor) {
#ifdef ELASTIC_CUDA_ON_CPU
  return true;
#else
  return tensor.is_cuda();
#endif
}

#ifdef ELASTIC_WITH_CUDA

inline cudaStream_t current_stream() {
#ifdef ELASTIC_CUDA_ON_CPU
  return nullptr;
#else
  return c10::cuda::getCurrentCUDAStream().stream();
#endif
}

// Raises RuntimeError with the op, the kernel and the shape it was launched for.
inline void check_launch(const char* op, const at::Tensor& tensor, const cuda::LaunchResult& result) {
  TORCH_CHECK(result, op, ": kernel ", result.kernel, ": launch failed for ", describe(tensor), ": ",
              cudaGetErrorString(result.error));
}

#endif

}  // namespace elastic

// ELASTIC_LIBRARY(m) { m.def(...) } once, and ELASTIC_REGISTER(function) in every file with ops, for a
// void function(torch::Library&) that hands over their implementations.
#ifdef ELASTIC_CUDA_ON_CPU
#define ELASTIC_LIBRARY(m) TORCH_LIBRARY(elastic_cuda_on_cpu, m)
#define ELASTIC_REGISTER(function) \
  TORCH_LIBRARY_IMPL(elastic_cuda_on_cpu, CPU, m) { function(m); }
#elif defined(ELASTIC_WITH_CUDA)
#define ELASTIC_LIBRARY(m) TORCH_LIBRARY(elastic, m)
#define ELASTIC_REGISTER(function)                     \
  TORCH_LIBRARY_IMPL(elastic, CPU, m) { function(m); } \
  TORCH_LIBRARY_IMPL(elastic, CUDA, m) { function(m); }
#else
#define ELASTIC_LIBRARY(m) TORCH_LIBRARY(elastic, m)
#define ELASTIC_REGISTER(function) \
  TORCH_LIBRARY_IMPL(elastic, CPU, m) { function(m); }
#endif
