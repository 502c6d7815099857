// mbarriers and bulk copies. A copy is cut into pieces, its destination is poisoned, and the pieces arrive
// one by one, in random order, whenever the scheduler delivers them; the source is read only then.
#include <cstring>

#include "hooks.h"

namespace cuda_on_cpu {
namespace {

constexpr unsigned MOST_BYTES = (1u << 20) - 1;  // a phase's transaction count has 20 bits and a sign
constexpr unsigned SMALLEST_PIECE = 16, PIECE_CHOICES = 8;  // 16 bytes to 2 KB

uint64_t mark(size_t i) { return 0xBA221E2000000000u + i; }

bool in_shared(const Block& block, const void* at, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(at);
  return from >= block.shared && from + bytes <= block.shared + block.shared_bytes;
}

size_t find(uint64_t* at, const char* what) {
  for (size_t i = 0; i < cluster.barriers.size(); i++)
    if (cluster.barriers[i].at == at) {
      if (*at != mark(i)) fail(std::string(what) + ": the barrier's memory was overwritten");
      if (cluster.barriers[i].block != current->block)
        fail(std::string(what) + ": the barrier belongs to another block");
      return i;
    }
  fail(std::string(what) + ": the barrier was not initialised");
}

void end_phase_if_complete(AsyncBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase++;
  barrier.pending = barrier.expected;
  wake(barrier.waiting);
}

}  // namespace

void barrier_init(uint64_t* at, unsigned arrivals) {
  if (!in_shared(*current->block, at, sizeof(*at)) || reinterpret_cast<uintptr_t>(at) % sizeof(*at) != 0)
    fail("barrier_init: expected an aligned place in this block's shared memory");
  if (arrivals == 0) fail("barrier_init: expected at least one arrival");
  for (const AsyncBarrier& other : cluster.barriers)
    if (other.at == at) fail("barrier_init: the barrier was initialised before");
  *at = mark(cluster.barriers.size());
  cluster.barriers.push_back({at, current->block, arrivals, arrivals});
}

void barrier_init_fence() {
  for (AsyncBarrier& barrier : cluster.barriers)
    if (barrier.block == current->block) barrier.fenced = true;
}

void barrier_expect_bytes(uint64_t* at, uint32_t bytes) {
  AsyncBarrier& barrier = cluster.barriers[find(at, "barrier_expect_bytes")];
  if (barrier.pending == 0) fail("barrier_expect_bytes: more arrivals in a phase than barrier_init said");
  barrier.bytes += bytes;
  barrier.pending--;
  if (barrier.bytes > MOST_BYTES) fail("barrier_expect_bytes: more bytes than a phase can count");
  end_phase_if_complete(barrier);
}

void barrier_wait(uint64_t* at, unsigned parity, Place place) {
  const size_t i = find(at, "barrier_wait");
  while ((cluster.barriers[i].phase & 1) == (parity & 1)) {
    cluster.barriers[i].waiting.push_back(current);
    wait("a bulk copy's barrier", place);
  }
}

void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* at) {
  const size_t i = find(at, "bulk_copy");
  if (!cluster.barriers[i].fenced) fail("bulk_copy: no barrier_init_fence() after barrier_init()");
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) misaligned(shared, 16);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) misaligned(global, 16);
  if (bytes == 0 || bytes % 16 != 0)
    fail("bulk_copy: expected a multiple of 16 bytes, got " + std::to_string(bytes));
  if (!in_shared(*current->block, shared, bytes)) fail("bulk_copy: leaves this block's shared memory");
  std::memset(shared, POISON, bytes);
  for (unsigned done = 0; done < bytes;) {
    const unsigned piece = std::min(bytes - done, SMALLEST_PIECE << random.below(PIECE_CHOICES));
    cluster.pieces.push_back(
        {static_cast<char*>(shared) + done, static_cast<const char*>(global) + done, piece, i});
    done += piece;
  }
}

void deliver_one() {
  const size_t pick = random.below(static_cast<unsigned>(cluster.pieces.size()));
  const Piece piece = cluster.pieces[pick];
  cluster.pieces[pick] = cluster.pieces.back();
  cluster.pieces.pop_back();
  std::memcpy(piece.to, piece.from, piece.bytes);
  AsyncBarrier& barrier = cluster.barriers[piece.barrier];
  barrier.bytes -= piece.bytes;
  end_phase_if_complete(barrier);
}

std::string unfinished_copies(const Block& block) {
  for (const Piece& piece : cluster.pieces)
    if (cluster.barriers[piece.barrier].block == &block)
      return "the block left the kernel while a bulk copy into its shared memory was under way";
  return "";
}

void misaligned(const void* address, size_t bytes) {
  fail("misaligned address: expected a multiple of " + std::to_string(bytes) + " bytes, got one of " +
       std::to_string(uintptr_t(1) << std::countr_zero(reinterpret_cast<uintptr_t>(address))));
}

void out_of_bounds(int64_t index, int64_t length) {
  fail("out of bounds: index " + std::to_string(index) + " of a span of " + std::to_string(length));
}

}  // namespace cuda_on_cpu
