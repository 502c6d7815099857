// The launch table of the logits pass.
//
// A token's logits in shared memory are cut into as few slices as let four CTAs share an SM: while one of
// them waits for memory or for its cluster, the others compute. Four times 256 threads of 64 registers also
// fill the SM. More logits than that allows get fewer and larger CTAs, then 16 of them; beyond, they are
// streamed. A streamed token that is read twice has the SM to itself, so that the logits in flight stay in L2
// between their two reads. `make gpu` sweeps the choices; docs/kernels.md has what that gave on an H200.
#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>

#include "cuda/common.cuh"
#include "cuda/logits_launch.h"
#include "cuda/logits_stats.cuh"

namespace elastic::cuda {
namespace {

constexpr int MAX_DEVICES = 64;
constexpr size_t RESERVED_BYTES = 1024;  // of shared memory, by the driver, for every CTA
constexpr int SM_THREADS = 1024;         // at 64 registers

struct Device {
  int most_cluster;  // CTAs of the largest cluster
  size_t cta_bytes;  // shared memory that one CTA may have
  size_t sm_bytes;   // that all CTAs of an SM have
  bool fast_doubles;
};

std::atomic<int> chosen_cluster{-1}, chosen_threads{0};

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, name, device) == cudaSuccess ? value : 0;
}

#ifdef __CUDACC__
constexpr int COMPILED_FOR[] = {__CUDA_ARCH_LIST__};  // 800 for sm_80
#else
constexpr int COMPILED_FOR[] = {900};
#endif

// Code compiled for sm_80 has no clusters, also where a newer device runs it. Clusters of sixteen CTAs are
// documented for sm_90 and sm_100 only, of eight for every device that has clusters.
int most_cluster(int capability) {
  const bool knows_clusters = std::any_of(std::begin(COMPILED_FOR), std::end(COMPILED_FOR),
                                          [&](int code) { return code >= 900 && code / 100 <= capability; });
  return !knows_clusters ? 1 : capability <= 10 ? 16 : 8;
}

Device query(int device) {
  return {most_cluster(attribute(cudaDevAttrComputeCapabilityMajor, device)),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device)),
          attribute(cudaDevAttrSingleToDoublePrecisionPerfRatio, device) == 2};
}

// Queried once per device: each answer takes microseconds.
Device current_device() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= MAX_DEVICES) device = 0;
#ifdef ELASTIC_CUDA_ON_CPU
  return query(device);  // tests change what it pretends to be
#else
  static std::once_flag known[MAX_DEVICES];
  static Device devices[MAX_DEVICES];
  std::call_once(known[device], [&] { devices[device] = query(device); });
  return devices[device];
#endif
}

size_t shared_bytes(Scalar dtype, int64_t vocab, int cluster) {
  const int64_t per_vector = dtype == Scalar::F32 ? 4 : 8;
  const int64_t unit =
      (vocab / per_vector + UNITS - 1) / UNITS;  // vectors; most where the logits are aligned
  return PASS_HEADER_BYTES + static_cast<size_t>(unit) * (UNITS / cluster) * sizeof(Vec16);
}

// `threads` 0: the table's. Logits that are needed twice are kept as far as the CTA's share of the SM allows.
LogitsLaunch streamed(const Device& device, Scalar dtype, int64_t vocab, int threads, bool rereads) {
  LogitsLaunch shape{false, 1,
                     threads > 0 ? threads
                     : rereads   ? SM_THREADS
                                 : SM_THREADS / 2,
                     PASS_HEADER_BYTES};
  const size_t sm = device.sm_bytes / SM_THREADS * static_cast<size_t>(shape.threads);
  const size_t most = sm < device.cta_bytes + RESERVED_BYTES ? sm : device.cta_bytes + RESERVED_BYTES;
  const size_t whole = shared_bytes(dtype, vocab, 1);
  if (rereads && most > PASS_HEADER_BYTES + RESERVED_BYTES)
    shape.shared_bytes = most - RESERVED_BYTES < whole ? most - RESERVED_BYTES : whole;
  return shape;
}

LogitsLaunch from_table(const Device& device, Scalar dtype, int64_t vocab, bool rereads) {
  LogitsLaunch best = streamed(device, dtype, vocab, 0, rereads);
  if (device.most_cluster == 1) return best;
  size_t most = 0;  // CTAs per SM
  for (int cluster = 1; cluster <= device.most_cluster && most < 4; cluster *= 2) {
    const size_t bytes = shared_bytes(dtype, vocab, cluster);
    const size_t ctas = bytes > device.cta_bytes ? 0 : device.sm_bytes / (bytes + RESERVED_BYTES);
    if (ctas <= most || (cluster == 16 && most > 0)) continue;  // 16 CTAs rarely find room at once
    most = ctas;
    best = {true, cluster, ctas >= 3 ? 256 : ctas == 2 ? 512 : 1024, bytes};
  }
  return best;
}

}  // namespace

LogitsLaunch logits_launch(Scalar dtype, int64_t vocab, bool rereads) {
  const int cluster = chosen_cluster, threads = chosen_threads;
  const Device device = current_device();
  if (cluster == 0) return streamed(device, dtype, vocab, threads, rereads);
  LogitsLaunch shape = cluster > 0 ? LogitsLaunch{true, cluster, 256, shared_bytes(dtype, vocab, cluster)}
                                   : from_table(device, dtype, vocab, rereads);
  if (threads > 0 && shape.resident) shape.threads = threads;
  if (threads > 0 && !shape.resident) shape = streamed(device, dtype, vocab, threads, rereads);
  return shape;
}

size_t most_shared_bytes() { return current_device().cta_bytes; }

bool fast_doubles() { return current_device().fast_doubles; }

bool set_logits_launch(int cluster, int threads) {
  const bool known = cluster == -1 || cluster == 0 || cluster == 1 || cluster == 2 || cluster == 4 ||
                     cluster == 8 || cluster == 16;
  if (!known || threads < 0 || threads > SM_THREADS || threads % WARP != 0) return false;
  chosen_cluster = cluster;
  chosen_threads = threads;
  return true;
}

}  // namespace elastic::cuda
