#include "scheduler.h"

#include <cstring>

namespace cuda_on_cpu {

Thread* current = nullptr;
Cluster cluster;
dim3 grid_dim, block_dim;
Random random;

namespace {

Thread outside;  // the caller of run_cluster
std::vector<Thread*> ready;
std::string failure;
void (*kernel)(const void*) = nullptr;
const void* kernel_context = nullptr;

std::string name(const Thread& t) {
  const auto text = [](dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
  };
  return "thread " + text(t.index) + " of block " + text(t.block->index);
}

void leave(Thread& from) { switch_context(from.context, outside.context); }

// Goes on with any thread that can, or outside once none is left or none can ever go on.
void run_next(Thread& from) {
  if (!cluster.pieces.empty() && cluster.laziness != 0 && random.below(cluster.laziness) == 0) deliver_one();
  while (ready.empty() && !cluster.pieces.empty()) deliver_one();
  if (ready.empty()) {
    leave(from);
    return;
  }
  size_t pick = random.below(static_cast<unsigned>(ready.size()));
  for (unsigned i = 1; i < cluster.draws; i++) {
    const size_t other = random.below(static_cast<unsigned>(ready.size()));
    if (ready[other]->eagerness > ready[pick]->eagerness) pick = other;
  }
  Thread* next = ready[pick];
  ready[pick] = ready.back();
  ready.pop_back();
  if (next == &from) return;
  current = next;
  switch_context(from.context, next->context);
}

void end_thread(Thread& thread) {
  check_nobody_waits_for(thread);
  thread.done = true;
  thread.block->warps[thread.number / WARP].left |= 1u << thread.number % WARP;
  cluster.live--;
  if (--thread.block->live > 0) return;
  if (const std::string left = unfinished_copies(*thread.block); !left.empty()) fail(left);
  // Peers that read on find poison.
  if (cluster.blocks.size() > 1) std::memset(thread.block->shared, POISON, thread.block->shared_bytes);
}

void enter() {
  Thread& thread = *current;
  thread.started = true;
  kernel(kernel_context);
  end_thread(thread);
  run_next(thread);
  __builtin_unreachable();  // a thread that is done is never ready
}

std::string deadlock() {
  std::string text = "deadlock:";
  int told = 0;
  for (const Block& block : cluster.blocks)
    for (const Thread& t : block.threads) {
      if (t.done || told == 3) continue;
      text += (told++ > 0 ? "; " : " ") + name(t) + " waits for " + t.waits_for + " at " + describe(t.place);
    }
  return text + "; in all " + std::to_string(cluster.live) + " threads wait";
}

}  // namespace

std::string run_cluster(void (*run)(const void*), const void* context) {
  kernel = run;
  kernel_context = context;
  failure.clear();
  ready.clear();
  size_t i = 0;
  for (Block& block : cluster.blocks)
    for (Thread& thread : block.threads) {
      prepare(thread.context, stack(i++), enter);
      ready.push_back(&thread);
    }
  run_next(outside);
  return failure.empty() && cluster.live > 0 ? deadlock() : failure;
}

void wait(const char* what, Place place) {
  Thread& thread = *current;
  thread.waits_for = what;
  thread.place = place;
  run_next(thread);
  thread.waits_for = nullptr;
}

void wake(Thread* thread) { ready.push_back(thread); }

void wake(std::vector<Thread*>& threads) {
  ready.insert(ready.end(), threads.begin(), threads.end());
  threads.clear();
}

void wake_if_waiting(Thread* thread, const char* what) {
  if (thread->waits_for == nullptr || std::strcmp(thread->waits_for, what) != 0) return;
  thread->waits_for = nullptr;
  wake(thread);
}

void fail(const std::string& what) {
  failure = name(*current) + ": " + what;
  leave(*current);
  __builtin_unreachable();  // the launch is over, and its fibers are never resumed
}

void may_yield() {
  if (random.below(4) != 0) return;
  ready.push_back(current);
  run_next(*current);
}

std::string describe(Place place) {
  const std::string file = place.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line());
}

bool same(Place a, Place b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

}  // namespace cuda_on_cpu
