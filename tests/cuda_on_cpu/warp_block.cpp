#include "warp_block.h"

#include <bit>

#include "hooks.h"

namespace cuda_on_cpu {
namespace {

std::string diverged(const char* barrier, Place here, Place there) {
  return std::string("divergent ") + barrier + ": this thread came to " + describe(here) +
         ", another one to " + describe(there);
}

uint64_t result_of(const Meeting& meeting, const Thread* warp, unsigned lane) {
  const auto bits = [&](auto counts) {
    uint64_t mask = 0;
    for (unsigned i = 0; i < WARP; i++)
      if (meeting.mask >> i & 1 && counts(warp[i])) mask |= uint64_t(1) << i;
    return mask;
  };
  switch (meeting.kind) {
    case Collective::SHUFFLE:
      return warp[warp[lane].source].value;
    case Collective::BALLOT:
      return bits([](const Thread& t) { return t.value != 0; });
    case Collective::MATCH:
      return bits([&](const Thread& t) { return t.value == warp[lane].value; });
    default:
      return 0;
  }
}

}  // namespace

unsigned lane() { return current->number % WARP; }

uint64_t meet(Collective kind, unsigned mask, uint64_t value, unsigned source, Place place) {
  Thread& thread = *current;
  Warp& warp = thread.block->warps[thread.number / WARP];
  Thread* threads = &thread.block->threads[thread.number / WARP * WARP];
  const unsigned mine = 1u << lane();
  mask &= warp.lanes;  // a block's last warp may be short
  if (!(mask & mine)) fail("warp collective: lane " + std::to_string(lane()) + " is not in its own mask");
  if (kind == Collective::SHUFFLE && !(mask >> source & 1))
    fail("shuffle reads lane " + std::to_string(source) + ", which does not take part");
  if (const unsigned gone = mask & warp.left)
    fail("divergent warp collective at " + describe(place) + ": lane " +
         std::to_string(std::countr_zero(gone)) + " has left the kernel");
  thread.value = value;
  thread.source = source;
  Meeting* meeting = nullptr;
  for (Meeting& open : warp.meetings) {
    if (!(open.mask & mask)) continue;
    if (open.mask != mask) fail("warp collective: lanes disagree on the mask at " + describe(place));
    if (open.kind != kind || !same(open.place, place)) fail(diverged("warp collective", place, open.place));
    meeting = &open;
  }
  if (meeting == nullptr) meeting = &warp.meetings.emplace_back(Meeting{kind, mask, 0, place});
  meeting->arrived |= mine;
  if (meeting->arrived != mask) {
    wait("the other lanes of its warp", place);
    return thread.result;
  }
  const Meeting complete = *meeting;
  *meeting = warp.meetings.back();
  warp.meetings.pop_back();
  for (unsigned i = 0; i < WARP; i++) {
    if (!(mask >> i & 1)) continue;
    threads[i].result = result_of(complete, threads, i);
    wake(&threads[i]);
  }
  wait("the other lanes of its warp", place);
  return thread.result;
}

int sync_block(Vote vote, bool value, Place place) {
  Thread& thread = *current;
  Block& block = *thread.block;
  if (block.live < block.threads.size())
    fail("divergent __syncthreads at " + describe(place) + ": " +
         std::to_string(block.threads.size() - block.live) + " threads of the block have left the kernel");
  if (!block.waiting.empty() && !same(block.waiting[0]->place, place))
    fail(diverged("__syncthreads", place, block.waiting[0]->place));
  block.votes += value;
  thread.place = place;
  block.waiting.push_back(&thread);
  if (block.waiting.size() == block.threads.size()) {
    const unsigned all = static_cast<unsigned>(block.threads.size());
    block.vote = vote == Vote::COUNT ? static_cast<int>(block.votes)
                 : vote == Vote::ANY ? block.votes > 0
                                     : block.votes == all;
    block.votes = 0;
    for (Thread* t : block.waiting) t->result = static_cast<uint64_t>(block.vote);
    wake(block.waiting);
  }
  wait("__syncthreads", place);
  return static_cast<int>(thread.result);
}

void check_nobody_waits_for(const Thread& leaving) {
  const Block& block = *leaving.block;
  if (!block.waiting.empty())
    fail("divergent __syncthreads: this thread left the kernel, others wait at " +
         describe(block.waiting[0]->place));
  for (const Meeting& open : block.warps[leaving.number / WARP].meetings)
    if (open.mask >> (leaving.number % WARP) & 1)
      fail("divergent warp collective: this thread left the kernel, others wait at " + describe(open.place));
  if (leaving.cluster_arrivals != leaving.cluster_waits) fail("cluster_arrive without cluster_wait");
  if (cluster.arrived > 0 && leaving.cluster_arrivals == cluster.phases)
    fail("divergent cluster barrier: this thread left the kernel, others have arrived");
}

// ---- clusters ----

unsigned cluster_rank() { return current->block->rank; }
unsigned cluster_size() { return static_cast<unsigned>(cluster.blocks.size()); }

void cluster_arrive(Place place) {
  Thread& thread = *current;
  if (thread.cluster_arrivals != thread.cluster_waits)
    fail("cluster_arrive at " + describe(place) + ": arrived before, without cluster_wait");
  unsigned threads = 0;
  for (const Block& block : cluster.blocks) threads += static_cast<unsigned>(block.threads.size());
  if (cluster.live < threads)
    fail("divergent cluster barrier at " + describe(place) + ": " + std::to_string(threads - cluster.live) +
         " threads of the cluster have left the kernel");
  Warp& warp = thread.block->warps[thread.number / WARP];
  thread.cluster_arrivals++;
  if (warp.cluster_arrivals == thread.cluster_arrivals && !same(warp.cluster_place, place))
    fail(diverged("cluster barrier", place, warp.cluster_place));
  warp.cluster_arrivals = thread.cluster_arrivals;
  warp.cluster_place = thread.place = place;
  if (++cluster.arrived < threads) return;
  cluster.arrived = 0;
  cluster.phases++;
  wake(cluster.waiting);
}

void cluster_wait() {
  Thread& thread = *current;
  if (thread.cluster_arrivals == thread.cluster_waits) fail("cluster_wait without cluster_arrive");
  thread.cluster_waits++;
  if (thread.cluster_arrivals <= cluster.phases) return;
  cluster.waiting.push_back(&thread);
  wait("the cluster barrier", thread.place);
}

void* peer_address(void* shared, unsigned rank) {
  const Block& own = *current->block;
  const auto offset = static_cast<unsigned char*>(shared) - own.shared;
  if (offset < 0 || offset >= static_cast<int64_t>(own.shared_bytes))
    fail("peer: the address is not in this block's shared memory");
  if (rank >= cluster.blocks.size())
    fail("peer: expected a rank below " + std::to_string(cluster.blocks.size()) + ", got " +
         std::to_string(rank));
  const Block& other = cluster.blocks[rank];
  if (other.live == 0) fail("peer: block " + std::to_string(rank) + " of the cluster has left the kernel");
  bool started = false;
  for (const Thread& t : other.threads) started |= t.started;
  if (!started) fail("peer: block " + std::to_string(rank) + " of the cluster may not have started yet");
  return other.shared + offset;
}

}  // namespace cuda_on_cpu
