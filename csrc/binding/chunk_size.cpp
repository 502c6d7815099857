#include "binding/chunk_size.h"

#if defined(ELASTIC_WITH_CUDA) && !defined(ELASTIC_CUDA_ON_CPU)
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <cuda_runtime_api.h>
#endif

namespace elastic {
namespace {

#if defined(ELASTIC_WITH_CUDA) && !defined(ELASTIC_CUDA_ON_CPU)

int64_t free_bytes(const at::Tensor& beside) {
  if (!beside.is_cuda()) return 0;
  const c10::cuda::CUDAStreamCaptureModeGuard asks_while_a_graph_is_captured(cudaStreamCaptureModeRelaxed);
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const bool captured = c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
  if (captured) return static_cast<int64_t>(free);  // a graph's pool gets nothing of what other pools hold
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(beside.device().index());
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return static_cast<int64_t>(free) + stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
}

#else

int64_t free_bytes(const at::Tensor&) { return 0; }

#endif

}  // namespace

ChunkSize chunk_size(std::optional<int64_t> chunk_tokens, const at::Tensor& beside) {
  return {chunk_tokens, chunk_tokens.has_value() ? 0 : free_bytes(beside)};
}

}  // namespace elastic
