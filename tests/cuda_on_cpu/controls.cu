// Small kernels that reverse an array, each in a sound version and one with a deliberate fault: the shim must
// find every fault and nothing else. Template argument: whether the kernel is sound.
#include "controls.h"
#include "cuda/barrier.cuh"
#include "cuda/cluster.cuh"
#include "cuda/common.cuh"
#include "cuda/memory.cuh"

namespace elastic::cuda {
namespace {

constexpr int THREADS = 128;  // and elements of a block
constexpr int CLUSTER = 4;
constexpr uint32_t BYTES = THREADS * sizeof(float);

struct Smem {
  Barrier barrier;
  alignas(16) float row[THREADS];
};

__device__ int opposite() { return THREADS - 1 - static_cast<int>(threadIdx.x); }

template <bool sound>
__global__ void syncthreads_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[threadIdx.x];
  if (sound) __syncthreads();
  out[threadIdx.x] = row[opposite()];
}

// The scratch of one reduction is written again while others still read it.
template <bool sound>
__global__ void reuse_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  for (int i = 0; i < THREADS; i++) {
    if (threadIdx.x == static_cast<unsigned>(i)) row[0] = in[i];
    __syncthreads();
    if (opposite() == i) out[threadIdx.x] = row[0];
    if (sound) __syncthreads();
  }
}

template <bool sound>
__global__ void syncwarp_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[threadIdx.x];
  if (sound) __syncwarp();
  const float mirrored = row[threadIdx.x ^ (WARP - 1)];  // within the warp
  __syncthreads();
  row[threadIdx.x] = mirrored;
  __syncthreads();
  out[threadIdx.x] = row[opposite() ^ (WARP - 1)];
}

template <bool sound>
__global__ void divergent_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[threadIdx.x];
  if (sound || threadIdx.x < THREADS / 2) __syncthreads();
  out[threadIdx.x] = row[opposite()];
}

template <bool sound>
__global__ void two_barriers_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[threadIdx.x];
  if (sound || threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = row[opposite()];
}

template <bool sound>
__global__ void shuffle_kernel(const float* in, Span<float> out) {
  float x = in[THREADS - WARP - threadIdx.x / WARP * WARP + threadIdx.x % WARP];
  if (sound || threadIdx.x % WARP < 16) x = __shfl_xor_sync(~0u, x, WARP - 1);
  out[threadIdx.x] = x;
}

template <bool sound>
__global__ void poison_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  if (sound || threadIdx.x > 0) row[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = row[opposite()];
}

// Block r of a cluster writes what block CLUSTER - 1 - r read.
template <bool before, bool after>
__global__ void cluster_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[cluster_rank() * THREADS + threadIdx.x];
  if (before) {
    cluster_sync();
  } else {
    __syncthreads();
  }
  const float* theirs = peer(row, CLUSTER - 1 - cluster_rank());
  __syncthreads();
  out[cluster_rank() * THREADS + threadIdx.x] = theirs[opposite()];
  if (after) cluster_sync();
}

enum class Copy {
  SOUND,
  NO_WAIT,
  WRONG_PARITY,
  NO_FENCE,
  TOO_FEW_BYTES,
  TOO_MANY_BYTES,
  LEFT,
  SOURCE_WRITTEN
};

// Two bulk copies, one behind the other on one barrier; the second brings what is written out.
template <Copy fault>
__global__ void copy_kernel(const float* in, Span<float> out) {
  Smem* s = block_smem<Smem>();
  if (threadIdx.x == 0) {
    barrier_init(&s->barrier, 1);
    if (fault != Copy::NO_FENCE) barrier_init_fence();
  }
  __syncthreads();
  const float* source = in;
  for (unsigned turn = 0; turn < 2; turn++) {
    const bool last = turn == 1;
    if (fault == Copy::SOURCE_WRITTEN) source = out.data();
    if (fault == Copy::SOURCE_WRITTEN && !last) out[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
      const uint32_t wrong = fault == Copy::TOO_FEW_BYTES ? BYTES / 2 : 2 * BYTES;
      const bool right = fault != Copy::TOO_FEW_BYTES && fault != Copy::TOO_MANY_BYTES;
      barrier_expect_bytes(&s->barrier, right ? BYTES : wrong);
      bulk_copy(s->row, source, BYTES, &s->barrier);
    }
    __syncthreads();
    if (fault == Copy::SOURCE_WRITTEN && last) out[threadIdx.x] = 0;
    if (fault == Copy::LEFT && last) return;
    if (fault != Copy::NO_WAIT) barrier_wait(&s->barrier, fault == Copy::WRONG_PARITY ? 0 : turn);
    const float mirrored = s->row[opposite()];
    __syncthreads();
    if (last) out[threadIdx.x] = mirrored;
  }
}

template <bool sound>
__global__ void shared_span_kernel(const float* in, Span<float> out) {
  const Span<float> row(block_smem<Smem>()->row, THREADS - !sound);
  row[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = row[opposite()];
}

template <bool sound>
__global__ void global_span_kernel(const float* in, Span<float> out) {
  out[sound ? opposite() : opposite() - 1] = in[threadIdx.x];
}

// A plain pointer into shared memory, which no span checks.
template <bool sound>
__global__ void shared_pointer_kernel(const float* in, Span<float> out) {
  float* row = block_smem<Smem>()->row;
  row[threadIdx.x] = in[threadIdx.x];
  if (!sound && threadIdx.x == 0) row[THREADS] = 0;
  __syncthreads();
  out[threadIdx.x] = row[opposite()];
}

template <bool sound>
__global__ void vector_kernel(const float* in, Span<float> out) {
  if (threadIdx.x >= THREADS / 4) return;
  const auto* vectors = reinterpret_cast<const Vector<float>*>(in + !sound);
  Vector<float> v = load_streaming(vectors + THREADS / 4 - 1 - threadIdx.x);
  v = {v.lanes[3], v.lanes[2], v.lanes[1], v.lanes[0]};
  store_streaming(reinterpret_cast<Vector<float>*>(out.data()) + threadIdx.x, v);
}

template <auto kernel>
LaunchResult run(const float* in, float* out) {
  return launch<kernel>({dim3(1), dim3(THREADS), sizeof(Smem)}, nullptr, in, Span<float>(out, THREADS));
}

template <auto kernel>
LaunchResult run_cluster(const float* in, float* out) {
  return launch<kernel>({dim3(CLUSTER), dim3(THREADS), sizeof(Smem), CLUSTER}, nullptr, in,
                        Span<float>(out, CLUSTER * THREADS));
}

}  // namespace

const std::vector<Control>& controls() {
  static const std::vector<Control> all = [] {
    std::vector<Control> list = {
        {"missing __syncthreads", THREADS, run<syncthreads_kernel<true>>, run<syncthreads_kernel<false>>},
        {"scratch reused too early", THREADS, run<reuse_kernel<true>>, run<reuse_kernel<false>>},
        {"missing __syncwarp", THREADS, run<syncwarp_kernel<true>>, run<syncwarp_kernel<false>>},
        {"divergent barrier", THREADS, run<divergent_kernel<true>>, run<divergent_kernel<false>>},
        {"two barriers for one", THREADS, run<two_barriers_kernel<true>>, run<two_barriers_kernel<false>>},
        {"divergent shuffle", THREADS, run<shuffle_kernel<true>>, run<shuffle_kernel<false>>},
        {"shared memory not written", THREADS, run<poison_kernel<true>>, run<poison_kernel<false>>},
        {"missing cluster_sync", CLUSTER * THREADS, run_cluster<cluster_kernel<true, true>>,
         run_cluster<cluster_kernel<false, true>>},
        {"left while a peer reads", CLUSTER * THREADS, run_cluster<cluster_kernel<true, true>>,
         run_cluster<cluster_kernel<true, false>>},
        {"missing barrier_wait", THREADS, run<copy_kernel<Copy::SOUND>>, run<copy_kernel<Copy::NO_WAIT>>},
        {"wrong parity", THREADS, run<copy_kernel<Copy::SOUND>>, run<copy_kernel<Copy::WRONG_PARITY>>},
        {"missing barrier_init_fence", THREADS, run<copy_kernel<Copy::SOUND>>,
         run<copy_kernel<Copy::NO_FENCE>>},
        {"too few bytes expected", THREADS, run<copy_kernel<Copy::SOUND>>,
         run<copy_kernel<Copy::TOO_FEW_BYTES>>},
        {"too many bytes expected", THREADS, run<copy_kernel<Copy::SOUND>>,
         run<copy_kernel<Copy::TOO_MANY_BYTES>>},
        {"left during a bulk copy", THREADS, run<copy_kernel<Copy::SOUND>>, run<copy_kernel<Copy::LEFT>>},
        {"source of a bulk copy written", THREADS, run<copy_kernel<Copy::SOUND>>,
         run<copy_kernel<Copy::SOURCE_WRITTEN>>},
        {"out of a shared span", THREADS, run<shared_span_kernel<true>>, run<shared_span_kernel<false>>},
        {"out of a global span", THREADS, run<global_span_kernel<true>>, run<global_span_kernel<false>>},
        {"beside shared memory", THREADS, run<shared_pointer_kernel<true>>,
         run<shared_pointer_kernel<false>>},
        {"misaligned vector", THREADS, run<vector_kernel<true>>, run<vector_kernel<false>>},
    };
    for (const Control& control : store_controls()) list.push_back(control);
    return list;
  }();
  return all;
}

}  // namespace elastic::cuda
