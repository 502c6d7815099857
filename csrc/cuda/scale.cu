// Scales a gradient that is already written, for backward(): one read and one write per element, or nothing
// where the factor is 1.
//
// Only the device knows the factor, so the launch cannot be left out. A bounded number of CTAs walks over all
// rows, however many there are: with one per row those of a head's gradient, which find nothing to do, would
// still take most of a millisecond to start.
#include <algorithm>

#include "cuda/logit.cuh"
#include "cuda/logits_launch.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

constexpr int THREADS = 256;
constexpr int64_t MOST_CTAS = 2048;  // more than a GPU runs at a time

template <class T>
__device__ __forceinline__ void scale_row(T* row, int64_t width, float factor) {
  constexpr int E = PER_VECTOR<T>;
  const uintptr_t to_vector = -reinterpret_cast<uintptr_t>(row) % sizeof(Vec16) / sizeof(T);
  const int64_t head = static_cast<int64_t>(to_vector) < width ? static_cast<int64_t>(to_vector) : width;
  const int64_t count = (width - head) / E, loose = width - count * E;
  const Span<T> elements(row, width);
  const Span<Vec16> vectors(reinterpret_cast<Vec16*>(row + head), count);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  for (int64_t v = thread; v < count; v += static_cast<int64_t>(gridDim.x) * THREADS) {
    float x[E];
    unpack<T>(load_streaming(&vectors[v]), x);
#pragma unroll
    for (int i = 0; i < E; i++) x[i] *= factor;
    store_streaming(&vectors[v], pack<T>(x));
  }
  if (thread >= loose) return;  // fewer than 2 E elements lie before and behind the vectors
  T& element = elements[thread < head ? thread : thread + count * E];
  element = from_float<T>(to_float(element) * factor);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    scale_kernel(T* values, int64_t rows, int64_t width, int64_t row_stride, const float* factor) {
  const float f = *factor;
  if (f == 1) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) scale_row(values + r * row_stride, width, f);
}

}  // namespace

LaunchResult scale(Scalar dtype, void* values, int64_t rows, int64_t width, int64_t row_stride,
                   const float* factor, cudaStream_t stream) {
  if (row_stride == width && rows > 0) {  // one long row
    width *= rows;
    rows = 1;
  }
  return with_logits_type(dtype, 0, [&](auto type, auto) {
    using T = decltype(type);
    const int64_t whole_row = (width + THREADS * PER_VECTOR<T> - 1) / (THREADS * PER_VECTOR<T>);
    const int64_t x = std::min(whole_row, MOST_CTAS);
    const int64_t y = std::min(rows, MOST_CTAS / std::max<int64_t>(x, 1));
    const Grid grid{dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)), dim3(THREADS)};
    return launch<scale_kernel<T>>(grid, stream, static_cast<T*>(values), rows, width, row_stride, factor);
  });
}

}  // namespace elastic::cuda
