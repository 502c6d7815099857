#include "fiber.h"

#include <sys/mman.h>

#include <new>
#include <vector>

namespace cuda_on_cpu {

char* stack(size_t i) {
  constexpr size_t GUARD = 4096, EACH = GUARD + STACK_BYTES, AT_ONCE = 256;
  static std::vector<char*> stacks;
  while (stacks.size() <= i) {
    void* memory = mmap(nullptr, AT_ONCE * EACH, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    for (size_t k = 0; k < AT_ONCE; k++) {
      char* at = static_cast<char*>(memory) + k * EACH;
      if (mprotect(at, GUARD, PROT_NONE) != 0) throw std::bad_alloc();
      stacks.push_back(at + GUARD);
    }
  }
  return stacks[i];
}

#ifdef __x86_64__

// Pushes the registers that a call preserves, swaps the stack pointers, pops.
extern "C" void cuda_on_cpu_switch(void** from, void* to);
asm(R"(
  .text
  .hidden cuda_on_cpu_switch
  .globl cuda_on_cpu_switch
  .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_on_cpu_switch, . - cuda_on_cpu_switch
)");

void prepare(Context& context, char* stack, void (*entry)()) {
  // As behind a call: the stack aligned to 16 bytes above the return address, which nobody uses.
  void** top = reinterpret_cast<void**>(stack + STACK_BYTES - 56);
  top[0] = nullptr;
  top[-1] = reinterpret_cast<void*>(entry);
  for (int i = 2; i < 8; i++) top[-i] = nullptr;
  context.stack_pointer = top - 7;
}

void switch_context(Context& from, Context& to) { cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer); }

#else

void prepare(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = STACK_BYTES;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

#endif

}  // namespace cuda_on_cpu
