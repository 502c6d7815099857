// Runs the threads of a cluster as fibers. A fiber runs until it waits for others; then any that can go on
// does, picked at random, and in between bytes of bulk copies arrive. Code that needs a barrier and lacks it
// meets, over a few seeds, an order in which that shows.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "fiber.h"
#include "types.h"

namespace cuda_on_cpu {

using Place = std::source_location;
constexpr unsigned WARP = 32;
constexpr unsigned char POISON = 0xFF;  // NaN in every float format

struct Block;
struct Thread;

// A bulk store that a thread has begun.
struct BulkStore {
  Thread* thread;
  unsigned unread, unwritten;  // bytes that are still in shared memory; that are not yet in global memory
  std::vector<char> data;      // what was read
};

struct Thread {
  Context context;
  Block* block = nullptr;
  dim3 index;
  unsigned number = 0;  // in the block
  bool started = false, done = false;
  unsigned eagerness = 0;
  const char* waits_for = nullptr;
  Place place;
  unsigned cluster_arrivals = 0, cluster_waits = 0;
  uint64_t value = 0, result = 0;  // of a warp collective
  unsigned source = 0;
  std::vector<std::shared_ptr<BulkStore>> stores = {};
};

enum class Collective;

// Lanes of a warp that wait for the rest of their mask.
struct Meeting {
  Collective kind;
  unsigned mask, arrived;
  Place place;
};

struct Warp {
  unsigned lanes = 0;  // mask of the lanes there are
  unsigned left = 0;   // mask of those that left the kernel
  std::vector<Meeting> meetings;
  unsigned cluster_arrivals = 0;  // of the lane that came last to the cluster barrier, from cluster_place
  Place cluster_place;
};

// An mbarrier. Shared memory holds its number, so that a kernel that writes over it is found out.
struct AsyncBarrier {
  uint64_t* at;
  Block* block;
  unsigned expected, pending;
  int64_t bytes = 0;  // still to come in this phase
  unsigned phase = 0;
  bool fenced = false;
  std::vector<Thread*> waiting = {};
};

// A part of a copy that is under way.
struct Piece {
  enum Kind { LOAD, READ, WRITE, PEER };  // READ, WRITE: of a bulk store, one after the other
  Kind kind;
  const Block* block;  // whose shared memory it needs; of WRITE: whose it was
  char* to;
  unsigned bytes;
  const char* from = nullptr;                  // LOAD, READ
  size_t barrier = 0;                          // LOAD, PEER
  char* held = nullptr;                        // READ, WRITE
  std::shared_ptr<BulkStore> store = nullptr;  // READ, WRITE
  char value[16] = {};                         // PEER
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Block {
  dim3 index;
  unsigned rank = 0;  // in the cluster
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned live = 0;
  std::vector<Thread*> waiting;  // at __syncthreads
  unsigned votes = 0;
  int vote = 0;
  std::unique_ptr<unsigned char[], Free> memory;  // shared memory between two margins, all poisoned
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  std::unique_ptr<unsigned char[]> copies_view;  // shared memory as bulk copies see it
};

// The blocks that run now.
struct Cluster {
  std::vector<Block> blocks;
  unsigned live = 0, arrived = 0, phases = 0;  // threads left; those at the cluster barrier; phases completed
  std::vector<Thread*> waiting;                // at the cluster barrier
  std::vector<AsyncBarrier> barriers;
  std::vector<Piece> pieces;
  unsigned laziness = 0;  // how rarely pieces arrive while threads can run; 0: never
  unsigned draws = 1;     // of how many threads that could go on the most eager one does
};

// The running thread, where it is, and its cluster.
extern Thread* current;
extern Cluster cluster;
extern dim3 grid_dim, block_dim;

// xorshift64*: fast, and good enough to shuffle.
class Random {
 public:
  void seed(uint64_t seed) { state_ = seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u; }
  unsigned below(unsigned n) {
    state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
    return static_cast<unsigned>((state_ * 0x2545F4914F6CDD1Du >> 32) * n >> 32);
  }

 private:
  uint64_t state_ = 1;
};
extern Random random;

// Runs `cluster` to its end. Returns what went wrong, or nothing.
std::string run_cluster(void (*run)(const void*), const void* context);

// For code on a fiber: waits until somebody calls wake(); ends the launch; lets others go first, sometimes.
void wait(const char* what, Place place = Place::current());
void wake(Thread* thread);
void wake(std::vector<Thread*>& threads);
void wake_if_waiting(Thread* thread, const char* what);
[[noreturn]] void fail(const std::string& what);
void may_yield();

std::string describe(Place place);
bool same(Place a, Place b);

// ---- async_copy.cpp ----

void deliver_one();
// What is left undone when a block is over, or nothing.
std::string unfinished_copies(const Block& block);

// ---- warp_block.cpp ----

void check_nobody_waits_for(const Thread& leaving);

}  // namespace cuda_on_cpu
