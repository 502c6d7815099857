// mbarriers, bulk copies and stores to peers: what runs beside the threads.
//
// A copy is cut into pieces, its destination is poisoned, and the pieces arrive one by one, in random order,
// whenever the scheduler delivers them; the source is read only then. A bulk store's piece leaves shared
// memory at one time and reaches global memory at another, later one. Bulk copies have a view of shared
// memory of their own: what threads write gets there by bulk_store_fence() only. (It takes all of the bytes
// that it is given, also those of threads that have not called it.)
#include <algorithm>
#include <cstring>

#include "hooks.h"

namespace cuda_on_cpu {
namespace {

constexpr unsigned MOST_BYTES = (1u << 20) - 1;  // a phase's transaction count has 20 bits and a sign
constexpr unsigned SMALLEST_PIECE = 16, PIECE_CHOICES = 8;  // 16 bytes to 2 KB
constexpr uint64_t MARK = 0xBA221E2000000000u;

bool in_shared(const Block& block, const void* at, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(at);
  return from >= block.shared && from + bytes <= block.shared + block.shared_bytes;
}

// The same bytes as bulk copies see them.
unsigned char* seen_by_copies(const Block& block, const void* shared) {
  return block.copies_view.get() + (static_cast<const unsigned char*>(shared) - block.shared);
}

size_t find_in(const Block& block, uint64_t* at, const char* what) {
  if (const uint64_t i = *at - MARK; i < cluster.barriers.size() && cluster.barriers[i].at == at) {
    if (cluster.barriers[i].block != &block)
      fail(std::string(what) + ": the barrier belongs to another block");
    return i;
  }
  for (const AsyncBarrier& barrier : cluster.barriers)
    if (barrier.at == at) fail(std::string(what) + ": the barrier's memory was overwritten");
  fail(std::string(what) + ": the barrier was not initialised");
}

size_t find(uint64_t* at, const char* what) { return find_in(*current->block, at, what); }

void end_phase_if_complete(AsyncBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase++;
  barrier.pending = barrier.expected;
  wake(barrier.waiting);
}

void arrive(AsyncBarrier& barrier, const char* what) {
  if (barrier.pending == 0) fail(std::string(what) + ": more arrivals in a phase than barrier_init said");
  barrier.pending--;
  end_phase_if_complete(barrier);
}

// Both ends of a bulk copy, whichever way it goes.
void check_ends(const char* what, const void* shared, const void* global, uint32_t bytes) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) misaligned(shared, 16);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) misaligned(global, 16);
  if (bytes == 0 || bytes % 16 != 0)
    fail(std::string(what) + ": expected a multiple of 16 bytes, got " + std::to_string(bytes));
  if (!in_shared(*current->block, shared, bytes))
    fail(std::string(what) + ": leaves this block's shared memory");
}

// piece(from, bytes) for the parts of [0, bytes).
template <class Fn>
void cut(uint32_t bytes, const Fn& piece) {
  for (uint32_t done = 0; done < bytes;) {
    const uint32_t length = std::min(bytes - done, SMALLEST_PIECE << random.below(PIECE_CHOICES));
    piece(done, length);
    done += length;
  }
}

void report(const Piece& piece) {
  AsyncBarrier& barrier = cluster.barriers[piece.barrier];
  barrier.bytes -= piece.bytes;
  end_phase_if_complete(barrier);
}

void deliver(Piece piece) {
  switch (piece.kind) {
    case Piece::LOAD:
      std::memcpy(piece.to, piece.from, piece.bytes);
      std::memcpy(seen_by_copies(*piece.block, piece.to), piece.from, piece.bytes);
      return report(piece);
    case Piece::PEER:
      std::memcpy(piece.to, piece.value, piece.bytes);
      return report(piece);
    case Piece::READ:
      std::memcpy(piece.held, piece.from, piece.bytes);
      piece.store->unread -= piece.bytes;
      piece.kind = Piece::WRITE;
      cluster.pieces.push_back(piece);
      break;
    case Piece::WRITE:
      std::memcpy(piece.to, piece.held, piece.bytes);
      piece.store->unwritten -= piece.bytes;
      break;
  }
  wake_if_waiting(piece.store->thread, "its bulk stores");
}

// Until every store of this thread but the last `but` has reached `done`.
template <class Done>
void wait_for_stores(unsigned but, const Done& done, Place place) {
  auto& stores = current->stores;
  const auto all_done = [&] {
    return stores.size() <= but ||
           std::all_of(stores.begin(), stores.end() - but, [&](const auto& store) { return done(*store); });
  };
  while (!all_done()) wait("its bulk stores", place);
}

}  // namespace

// ---- barriers ----

void barrier_init(uint64_t* at, unsigned arrivals) {
  if (!in_shared(*current->block, at, sizeof(*at)) || reinterpret_cast<uintptr_t>(at) % sizeof(*at) != 0)
    fail("barrier_init: expected an aligned place in this block's shared memory");
  if (arrivals == 0) fail("barrier_init: expected at least one arrival");
  for (const AsyncBarrier& other : cluster.barriers)
    if (other.at == at) fail("barrier_init: the barrier was initialised before");
  *at = MARK + cluster.barriers.size();
  cluster.barriers.push_back({at, current->block, arrivals, arrivals});
}

void barrier_init_fence() {
  for (AsyncBarrier& barrier : cluster.barriers)
    if (barrier.block == current->block) barrier.fenced = true;
}

void barrier_arrive(uint64_t* at) {
  may_yield();
  arrive(cluster.barriers[find(at, "barrier_arrive")], "barrier_arrive");
}

void barrier_expect_bytes(uint64_t* at, uint32_t bytes) {
  AsyncBarrier& barrier = cluster.barriers[find(at, "barrier_expect_bytes")];
  barrier.bytes += bytes;
  if (barrier.bytes > MOST_BYTES) fail("barrier_expect_bytes: more bytes than a phase can count");
  arrive(barrier, "barrier_expect_bytes");
}

void barrier_wait(uint64_t* at, unsigned parity, Place place) {
  const size_t i = find(at, "barrier_wait");
  while ((cluster.barriers[i].phase & 1) == (parity & 1)) {
    cluster.barriers[i].waiting.push_back(current);
    wait("a barrier's phase", place);
  }
}

// ---- copies ----

void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* at) {
  const size_t i = find(at, "bulk_copy");
  if (!cluster.barriers[i].fenced) fail("bulk_copy: no barrier_init_fence() after barrier_init()");
  check_ends("bulk_copy", shared, global, bytes);
  std::memset(shared, POISON, bytes);
  std::memset(seen_by_copies(*current->block, shared), POISON, bytes);
  cut(bytes, [&](uint32_t from, uint32_t length) {
    Piece piece{Piece::LOAD, current->block, static_cast<char*>(shared) + from, length};
    piece.from = static_cast<const char*>(global) + from;
    piece.barrier = i;
    cluster.pieces.push_back(piece);
  });
}

void bulk_store_fence(const void* shared, uint32_t bytes) {
  if (!in_shared(*current->block, shared, bytes)) fail("bulk_store_fence: leaves this block's shared memory");
  std::memcpy(seen_by_copies(*current->block, shared), shared, bytes);
}

void bulk_store_streaming(void* global, const void* shared, uint32_t bytes) {
  check_ends("bulk_store", shared, global, bytes);
  auto store = std::make_shared<BulkStore>(current, bytes, bytes, std::vector<char>(bytes));
  current->stores.push_back(store);
  const auto* from = reinterpret_cast<const char*>(seen_by_copies(*current->block, shared));
  const bool at_once = random.below(3) == 0;  // too early for who has not finished, or as late as can be
  cut(bytes, [&](uint32_t begin, uint32_t length) {
    Piece piece{Piece::READ, current->block, static_cast<char*>(global) + begin, length};
    piece.from = from + begin;
    piece.held = store->data.data() + begin;
    piece.store = store;
    if (at_once)
      deliver(piece);
    else
      cluster.pieces.push_back(piece);
  });
}

void bulk_stores_left_shared(unsigned but, Place place) {
  wait_for_stores(but, [](const BulkStore& store) { return store.unread == 0; }, place);
}

void bulk_stores_wait(Place place) {
  wait_for_stores(0, [](const BulkStore& store) { return store.unwritten == 0; }, place);
}

void store_to_peer_16(void* at, const void* value, uint64_t* barrier, unsigned rank) {
  auto* there = static_cast<char*>(peer_address(at, rank));
  if (reinterpret_cast<uintptr_t>(there) % 16 != 0) misaligned(there, 16);
  const Block& block = cluster.blocks[rank];
  const size_t i = find_in(block, static_cast<uint64_t*>(peer_address(barrier, rank)), "store_to_peer");
  Piece piece{Piece::PEER, &block, there, 16};
  std::memcpy(piece.value, value, 16);
  piece.barrier = i;
  std::memset(there, POISON, 16);
  cluster.pieces.push_back(piece);
}

void deliver_one() {
  const size_t pick = random.below(static_cast<unsigned>(cluster.pieces.size()));
  const Piece piece = cluster.pieces[pick];
  cluster.pieces[pick] = cluster.pieces.back();
  cluster.pieces.pop_back();
  deliver(piece);
}

std::string unfinished_copies(const Block& block) {
  for (const Piece& piece : cluster.pieces) {
    if (piece.block != &block) continue;
    return std::string("the block left the kernel while a ") +
           (piece.kind == Piece::LOAD   ? "bulk copy into its shared memory"
            : piece.kind == Piece::PEER ? "peer's store to its shared memory"
                                        : "bulk store of its own") +
           " was under way";
  }
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
