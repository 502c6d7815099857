// The launch table of the logits pass: what was measured (logits_table.h), then rules.
//
// A token's logits in shared memory are cut into as few slices as let four CTAs share an SM: while one of
// them waits for memory or for its cluster, the others compute. Four times 256 threads of 64 registers also
// fill the SM. More logits than that allows get fewer and larger CTAs, then 16 of them; beyond, they are
// streamed. A streamed token that is read twice has the SM to itself, so that the logits in flight stay in L2
// between their two reads. `make gpu` sweeps the choices; docs/kernels.md has what that gave on an H200. The
// ring's shape is in logits_ring_launch.cu.
#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/common.cuh"
#include "cuda/logits_device.h"
#include "cuda/logits_launch.h"
#include "cuda/logits_stats.cuh"
#include "cuda/logits_table.h"

namespace elastic::cuda {
namespace {

constexpr int MAX_DEVICES = 64;
constexpr size_t RESERVED_BYTES = 1024;     // of shared memory, by the driver, for every CTA
constexpr int SM_THREADS = 1024;            // at 64 registers
constexpr int64_t RING_LEAST_TOKENS = 512;  // fewer leave most of a GPU's persistent clusters without one

constexpr std::string_view KERNEL_NAMES[] = {"table", "pass", "ring", "ring_direct"};

std::atomic<int> chosen_cluster{-1}, chosen_threads{0};
std::atomic<LogitsKernel> chosen_kernel{LogitsKernel::TABLE};

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

LogitsDevice query(int device) {
  const int capability = attribute(cudaDevAttrComputeCapabilityMajor, device);
  return {capability, most_cluster(capability),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device)),
          attribute(cudaDevAttrSingleToDoublePrecisionPerfRatio, device) == 2};
}

size_t shared_bytes(Scalar dtype, int64_t vocab, int cluster) {
  const int64_t per_vector = dtype == Scalar::F32 ? 4 : 8;
  const int64_t unit =
      (vocab / per_vector + UNITS - 1) / UNITS;  // vectors; most where the logits are aligned
  return PASS_HEADER_BYTES + static_cast<size_t>(unit) * (UNITS / cluster) * sizeof(Vec16);
}

// `threads` 0: the table's. Logits that are needed twice are kept as far as the CTA's share of the SM allows.
LogitsLaunch streamed(const LogitsDevice& device, Scalar dtype, int64_t vocab, int threads, bool rereads) {
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

LogitsLaunch from_rules(const LogitsDevice& device, Scalar dtype, int64_t vocab, bool rereads) {
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

// Of the pass; -1 and 0 leave the choice to the rules.
LogitsLaunch by_hand(Scalar dtype, int64_t vocab, bool rereads, int cluster, int threads) {
  const LogitsDevice device = current_device();
  if (cluster == 0) return streamed(device, dtype, vocab, threads, rereads);
  LogitsLaunch shape = cluster > 0 ? LogitsLaunch{true, cluster, 256, shared_bytes(dtype, vocab, cluster)}
                                   : from_rules(device, dtype, vocab, rereads);
  if (threads > 0 && shape.resident) shape.threads = threads;
  if (threads > 0 && !shape.resident) shape = streamed(device, dtype, vocab, threads, rereads);
  return shape;
}

MeasuredLaunch from_table(const LogitsChunk& chunk, int64_t vocab, bool rereads) {
  const int capability = current_device().capability;
  for (const MeasuredLaunch& entry : MEASURED)
    if (entry.capability == capability && entry.dtype == chunk.dtype && entry.from <= vocab &&
        vocab < entry.to && entry.rereads == rereads &&
        (entry.kernel == LogitsKernel::PASS || chunk.tokens >= RING_LEAST_TOKENS))
      return entry;
  return {capability, chunk.dtype, 0, 0, rereads, LogitsKernel::PASS, -1, 0};
}

bool lies_alike(const LogitsChunk& chunk) {
  const int64_t size = chunk.dtype == Scalar::F32 ? 4 : 2;
  const int64_t apart = static_cast<const char*>(chunk.gradient) - static_cast<const char*>(chunk.logits);
  return apart % 16 == 0 && (chunk.gradient_stride - chunk.row_stride) * size % 16 == 0;
}

}  // namespace

// Queried once per device: each answer takes microseconds.
LogitsDevice current_device() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= MAX_DEVICES) device = 0;
#ifdef ELASTIC_CUDA_ON_CPU
  return query(device);  // tests change what it pretends to be
#else
  static std::once_flag known[MAX_DEVICES];
  static LogitsDevice devices[MAX_DEVICES];
  std::call_once(known[device], [&] { devices[device] = query(device); });
  return devices[device];
#endif
}

LogitsLaunch logits_launch(Scalar dtype, int64_t vocab, bool rereads) {
  const bool ring = chosen_kernel != LogitsKernel::TABLE && chosen_kernel != LogitsKernel::PASS;
  return by_hand(dtype, vocab, rereads, ring ? -1 : chosen_cluster.load(), chosen_threads);
}

LogitsChoice choose_launch(const LogitsChunk& chunk, int64_t vocab, bool softcap, bool rereads) {
  LogitsKernel kernel = chosen_kernel;
  int cluster = chosen_cluster, threads = chosen_threads;
  const bool chosen = kernel != LogitsKernel::TABLE || cluster != -1 || threads != 0;
  if (!chosen) {
    const MeasuredLaunch entry = from_table(chunk, vocab, rereads);
    kernel = entry.kernel;
    cluster = entry.cluster;
    threads = entry.threads;
  }
  LogitsChoice choice{LogitsKernel::PASS, {}, {}, 0};
  const bool ring = kernel == LogitsKernel::RING || kernel == LogitsKernel::RING_DIRECT;
  if (ring && !softcap && current_device().most_cluster > 1 && (!rereads || lies_alike(chunk))) {
    choice.kernel = kernel;
    if (ring_launch(chunk, vocab, rereads, cluster, choice) || chosen) return choice;
  }
  choice.kernel = LogitsKernel::PASS;
  choice.pass = by_hand(chunk.dtype, vocab, rereads, ring ? -1 : cluster, threads);
  return choice;
}

std::string_view name_of(LogitsKernel kernel) { return KERNEL_NAMES[static_cast<size_t>(kernel)]; }

LogitsKernel logits_kernel_named(std::string_view name) {
  for (size_t i = 0; i < std::size(KERNEL_NAMES); i++)
    if (KERNEL_NAMES[i] == name) return static_cast<LogitsKernel>(i);
  throw std::invalid_argument("kernel: expected table, pass, ring or ring_direct, got " + std::string(name));
}

size_t most_shared_bytes() { return current_device().cta_bytes; }

bool fast_doubles() { return current_device().fast_doubles; }

bool set_logits_launch(int cluster, int threads, LogitsKernel kernel) {
  const bool ring = kernel == LogitsKernel::RING || kernel == LogitsKernel::RING_DIRECT;
  const bool known = cluster == -1 || (cluster == 0 && !ring) || cluster == 1 || cluster == 2 ||
                     cluster == 4 || cluster == 8 || cluster == 16;
  if (!known || threads < 0 || threads > SM_THREADS || threads % WARP != 0 || (ring && threads != 0))
    return false;
  chosen_cluster = cluster;
  chosen_threads = threads;
  chosen_kernel = kernel;
  return true;
}

}  // namespace elastic::cuda
