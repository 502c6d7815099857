// Contexts that one OS thread switches between, each on a stack of its own with an unmapped page below, so
// that running over it stops the process instead of corrupting a neighbour.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

struct Context {
#ifdef __x86_64__
  void* stack_pointer = nullptr;
#else
  ucontext_t registers;
#endif
};

constexpr size_t STACK_BYTES = 64 * 1024;

// The `i`-th stack, mapped on first use and kept.
char* stack(size_t i);

// Makes `context` begin in `entry`, which never returns, on the given stack.
void prepare(Context& context, char* stack, void (*entry)());

// Saves where we are and goes on where `to` was saved.
void switch_context(Context& from, Context& to);

}  // namespace cuda_on_cpu
