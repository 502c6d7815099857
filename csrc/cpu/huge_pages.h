// Huge pages for new large outputs: faulting in 4 KB pages costs more than computing what is written there.
#pragma once

#include <cstddef>
#include <cstdint>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace elastic::cpu {

// Asks for 2 MB pages under memory that was just allocated and not touched yet. 156 MB of float32 gradient:
// 11 ms to fault in instead of 35. A hint: where the kernel grants none, nothing changes.
inline void prefer_huge_pages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t PAGE = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / PAGE * PAGE;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace elastic::cpu
