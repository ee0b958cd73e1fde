// Fresh memory in huge pages, where the system leaves that to the program (Linux: "madvise"). Results of a hundred MB
// are new memory at every call, and the faults of their small pages take longer than the work: a fault for 4 KB,
// several times that of writing them.
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
