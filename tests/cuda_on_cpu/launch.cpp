// Checks a launch as the CUDA runtime does, runs its clusters in random order, and counts it.
#include "launch.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <numeric>

#include "hooks.h"

namespace cuda_on_cpu {
namespace {

// Limits of every device.
constexpr unsigned MOST_THREADS = 1024, MOST_ROWS = 65535;
// Poisoned bytes on both sides of shared memory. Its own beginning is aligned to 16 bytes and not to more.
constexpr size_t MARGIN = 256 + 16, ALIGNMENT = 256;

std::mutex one_at_a_time;
std::map<std::string, int64_t, std::less<>> counts;
uint64_t seed = 0, launched = 0;  // since the seed was set
std::string last_failure;

unsigned most_cluster() {
  if (device.capability < 9) return 1;
  return device.capability <= 10 ? 16 : 8;
}

cudaError_t check(dim3 grid, dim3 block, size_t smem_bytes, unsigned size) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > MOST_THREADS || block.z > 64) return cudaErrorInvalidConfiguration;
  if (grid.x > INT32_MAX || grid.y > MOST_ROWS || grid.z > MOST_ROWS) return cudaErrorInvalidConfiguration;
  if (size == 0 || size > most_cluster() || grid.x % size != 0) return cudaErrorInvalidConfiguration;
  return smem_bytes > static_cast<size_t>(device.block_bytes) ? cudaErrorInvalidValue : cudaSuccess;
}

void make_blocks(unsigned size, size_t smem_bytes) {
  const unsigned threads = block_dim.x * block_dim.y * block_dim.z;
  cluster.blocks.clear();
  cluster.blocks.resize(size);
  for (unsigned rank = 0; rank < size; rank++) {
    Block& block = cluster.blocks[rank];
    const size_t bytes = (smem_bytes + 2 * MARGIN + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block.rank = rank;
    block.memory.reset(static_cast<unsigned char*>(std::aligned_alloc(ALIGNMENT, bytes)));
    if (block.memory == nullptr) throw std::bad_alloc();
    block.shared = block.memory.get() + MARGIN;
    block.shared_bytes = smem_bytes;
    block.copies_view = std::make_unique<unsigned char[]>(smem_bytes);
    block.threads.resize(threads);
    block.warps.resize((threads + WARP - 1) / WARP);
  }
}

// The cluster before its first thread runs.
void reset(uint64_t number) {
  const unsigned size = static_cast<unsigned>(cluster.blocks.size()), across = grid_dim.x / size;
  const dim3 first(static_cast<unsigned>(number % across) * size,
                   static_cast<unsigned>(number / across % grid_dim.y),
                   static_cast<unsigned>(number / across / grid_dim.y));
  cluster.live = cluster.arrived = cluster.phases = 0;
  cluster.waiting.clear();
  cluster.barriers.clear();
  cluster.pieces.clear();
  // Most of the time bulk copies arrive when nothing else can happen, and some warps or blocks run ahead.
  cluster.laziness = random.below(4) == 0 ? 32 : 0;
  const unsigned ahead = random.below(3);
  cluster.draws = ahead == 0 ? 1 : 4;
  for (Block& block : cluster.blocks) {
    const unsigned threads = static_cast<unsigned>(block.threads.size());
    std::memset(block.memory.get(), POISON, block.shared_bytes + 2 * MARGIN);
    std::memset(block.copies_view.get(), POISON, block.shared_bytes);
    const unsigned eagerness = random.below(1000);
    block.index = dim3(first.x + block.rank, first.y, first.z);
    block.live = threads;
    block.votes = 0;
    block.waiting.clear();
    cluster.live += threads;
    for (unsigned i = 0; i < threads; i++) {
      Thread& thread = block.threads[i];
      thread.block = &block;
      thread.number = i;
      thread.index = dim3(i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y));
      thread.started = thread.done = false;
      thread.cluster_arrivals = thread.cluster_waits = 0;
      thread.waits_for = nullptr;
      thread.stores.clear();
      thread.eagerness = ahead == 1      ? eagerness
                         : i % WARP == 0 ? random.below(1000)
                                         : block.threads[i - 1].eagerness;
    }
    for (unsigned w = 0; w < block.warps.size(); w++) {
      const unsigned lanes = std::min(WARP, threads - w * WARP);
      block.warps[w].lanes = lanes == WARP ? ~0u : (1u << lanes) - 1;
      block.warps[w].left = 0;
      block.warps[w].meetings.clear();
      block.warps[w].cluster_arrivals = 0;
    }
  }
}

std::string written_margins() {
  for (const Block& block : cluster.blocks)
    for (size_t i = 0; i < MARGIN; i++)
      if (block.memory[i] != POISON || block.shared[block.shared_bytes + i] != POISON)
        return "out of bounds: wrote beside the shared memory of block " + std::to_string(block.index.x);
  return "";
}

}  // namespace

cudaError_t launch(std::string_view kernel, dim3 grid, dim3 block, size_t smem_bytes, unsigned size,
                   void (*run)(const void*), const void* context) {
  const std::lock_guard lock(one_at_a_time);
  if (const cudaError_t error = check(grid, block, smem_bytes, size); error != cudaSuccess) return error;
  grid_dim = grid;
  block_dim = block;
  random.seed(seed * 0x100000001B3u + launched++);
  make_blocks(size, smem_bytes);
  std::vector<uint64_t> order(uint64_t(grid.x) / size * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t(0));
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random.below(unsigned(i))]);
  for (const uint64_t number : order) {
    reset(number);
    std::string failure = run_cluster(run, context);
    if (failure.empty()) failure = written_margins();
    if (failure.empty()) continue;
    last_failure = failure + " [seed " + std::to_string(seed) + ", launch " + std::to_string(launched) + "]";
    return cudaErrorLaunchFailure;
  }
  counts[std::string(kernel)]++;
  return cudaSuccess;
}

int resident_clusters() { return 1 + static_cast<int>((seed + launched) % 3); }

void set_seed(uint64_t value) {
  const std::lock_guard lock(one_at_a_time);
  seed = value;
  launched = 0;
}

std::map<std::string, int64_t, std::less<>> launches() {
  const std::lock_guard lock(one_at_a_time);
  return counts;
}

}  // namespace cuda_on_cpu

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return cuda_on_cpu::last_failure.c_str();
  }
  return "unknown error";
}
