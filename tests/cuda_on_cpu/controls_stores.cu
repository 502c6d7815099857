// Controls (controls.cu) of barriers that threads arrive at, of bulk stores and of stores to peers.
#include "controls.h"
#include "cuda/barrier.cuh"
#include "cuda/cluster.cuh"
#include "cuda/memory.cuh"

namespace elastic::cuda {
namespace {

constexpr int THREADS = 128, HALF = THREADS / 2, CLUSTER = 4;
constexpr int VECTORS = THREADS / Vector<float>::LANES;
constexpr uint32_t HALF_BYTES = HALF * sizeof(float);

struct Smem {
  Barrier barrier;
  alignas(16) float row[HALF];
  Vector<float> landed[VECTORS];
};

enum class Store { SOUND, NO_ARRIVAL, FEW_COUNTED, NO_WAIT, NO_FENCE, REUSED, LEFT };

// Half of the threads turn a half round, in shared memory, from where one thread stores it; then the other
// half.
template <Store fault>
__global__ void store_kernel(const float* in, Span<float> out) {
  Smem* s = block_smem<Smem>();
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    barrier_init(&s->barrier, fault == Store::FEW_COUNTED ? HALF / 2 : HALF);
    barrier_init_fence();
  }
  __syncthreads();
  for (unsigned turn = 0; turn < 2; turn++) {
    if (t < HALF) {
      s->row[HALF - 1 - t] = in[turn == 0 ? HALF + t : t];
      if (fault != Store::NO_FENCE) bulk_store_fence(s->row, HALF_BYTES);
      if (fault != Store::NO_ARRIVAL || t != 7) barrier_arrive(&s->barrier);
    }
    if (t == HALF) {
      if (fault != Store::NO_WAIT) barrier_wait(&s->barrier, turn);
      bulk_store_streaming(&out[turn * HALF], s->row, HALF_BYTES);
      if (fault != Store::REUSED) bulk_stores_left_shared<0>();
      if (turn == 1 && fault != Store::LEFT) bulk_stores_wait();
    }
    __syncthreads();
  }
}

enum class Peer { SOUND, NO_WAIT, TOO_EARLY };

// Block r of a cluster writes what block CLUSTER - 1 - r has sent it.
template <Peer fault>
__global__ void peer_store_kernel(const float* in, Span<float> out) {
  Smem* s = block_smem<Smem>();
  const int t = static_cast<int>(threadIdx.x), rank = static_cast<int>(cluster_rank());
  for (int i = 0; i < 4 * (rank % 2); i++) __syncthreads();  // every other block is late
  if (t == 0) {
    barrier_init(&s->barrier, 1);
    barrier_init_fence();
  }
  if (fault == Peer::TOO_EARLY) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  if (t == 0) barrier_expect_bytes(&s->barrier, sizeof(s->landed));
  if (t < VECTORS) {
    const float* four = in + rank * THREADS + t * 4;
    const Vector<float> turned{four[3], four[2], four[1], four[0]};
    store_to_peer(&s->landed[VECTORS - 1 - t], turned, &s->barrier,
                  static_cast<unsigned>(CLUSTER - 1 - rank));
  }
  if (fault != Peer::NO_WAIT) barrier_wait_for_peers(&s->barrier, 0);
  out[rank * THREADS + t] = s->landed[t / 4].lanes[t % 4];
  cluster_sync();
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

template <Store fault>
Control store(const char* name) {
  return {name, THREADS, run<store_kernel<Store::SOUND>>, run<store_kernel<fault>>};
}

template <Peer fault>
Control peer_store(const char* name) {
  return {name, CLUSTER * THREADS, run_cluster<peer_store_kernel<Peer::SOUND>>,
          run_cluster<peer_store_kernel<fault>>};
}

}  // namespace

std::vector<Control> store_controls() {
  return {
      store<Store::NO_ARRIVAL>("missing barrier_arrive"),
      store<Store::FEW_COUNTED>("too few arrivals counted"),
      store<Store::NO_WAIT>("stored before it was written"),
      store<Store::NO_FENCE>("missing bulk_store_fence"),
      store<Store::REUSED>("source of a bulk store written"),
      store<Store::LEFT>("left during a bulk store"),
      peer_store<Peer::NO_WAIT>("missing wait for a peer's store"),
      peer_store<Peer::TOO_EARLY>("stored to a peer too early"),
  };
}

}  // namespace elastic::cuda
