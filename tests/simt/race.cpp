// The race detector. Kernels are compiled with -fsanitize=thread, but the sanitizer is never linked: the functions that
// it would call at each access are defined here. The shadow keeps, for each byte, the last write and two reads.
//
// Ordered are: accesses of one thread; before and after a block barrier; before and after a __syncwarp of both threads,
// directly or passed on from lane to lane; atomics among themselves. Shuffles and votes order nothing, and neither does
// anything between blocks: "the last block to arrive sums up" is reported, whatever its fences.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "scheduler.h"
#include "simt.h"

extern "C" char __bss_start[] __attribute__((visibility("hidden")));  // shared variables are in here: static, all zero
extern "C" char _end[] __attribute__((visibility("hidden")));

namespace simt {
namespace {

constexpr int kClockBits = 14, kBarrierBits = 16, kBlockBits = 22;
constexpr size_t kPageBytes = 4096;

struct Access {
  uint64_t any : 1, atomic : 1, thread : 10, clock : kClockBits, barrier : kBarrierBits, block : kBlockBits;
};

struct Shadow {  // of a byte
  Access write, first_read, last_read;
};

std::unordered_map<uintptr_t, std::unique_ptr<Shadow[]>> pages;
uintptr_t last_page = 0;
Shadow* last_shadow = nullptr;

Shadow& shadow_of(uintptr_t address) {
  if (address / kPageBytes != last_page || !last_shadow) {
    auto& page = pages[address / kPageBytes];
    if (!page) page.reset(new Shadow[kPageBytes]());
    last_page = address / kPageBytes;
    last_shadow = page.get();
  }
  return last_shadow[address % kPageBytes];
}

bool within(uintptr_t address, const void* from, size_t bytes) {
  return address - reinterpret_cast<uintptr_t>(from) < bytes;
}

bool is_own(const Access& past) { return past.thread == running.thread && past.block == running.block; }

bool is_ordered(const Access& past, bool in_shared) {
  if (!past.any || is_own(past)) return true;
  if (past.block != running.block) return in_shared;
  if (past.barrier != running.barrier) return true;
  return past.thread / 32 == running.thread / 32 && past.clock <= running.heard[past.thread % 32];
}

std::string line_of(const void* code) {
  Dl_info library;
  if (!dladdr(code, &library)) return "an unknown line";
  const size_t offset = static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase) - 1;
  char command[1024], line[512] = "an unknown line";
  std::snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%zx", library.dli_fname, offset);
  FILE* const pipe = popen(command, "r");
  if (!pipe) return line;
  if (std::fgets(line, sizeof line, pipe)) line[std::strcspn(line, " \n")] = 0;
  pclose(pipe);
  return line;
}

}  // namespace

void forget_accesses() {
  pages.clear();
  last_shadow = nullptr;
}

void touch(const void* at, size_t bytes, bool writes, bool atomic, const void* code) {
  if (!running.any) return;  // host code of the same file
  uintptr_t address = reinterpret_cast<uintptr_t>(at);
  if (within(address, running.stack, kStackBytes)) return;
  if (running.clock >> kClockBits || running.barrier >> kBarrierBits || running.block >> kBlockBits)
    fail("more barriers or blocks than the race detector can count: make the test smaller");
  const bool in_shared = within(address, running.shared, running.shared_bytes) ||
                         within(address, __bss_start, static_cast<size_t>(_end - __bss_start));
  const Access now{1, atomic, running.thread, running.clock, running.barrier, running.block};
  const auto report = [&](const char* what, const Access& past, const char* did) {
    fail(std::string(what) + ": " + std::to_string(bytes) + " bytes of " + (in_shared ? "shared" : "global") +
         " memory: " + describe_running() + (writes ? " writes" : " reads") + " at " + line_of(code) +
         (past.any ? "; thread " + std::to_string(past.thread) + " of block " + std::to_string(past.block) + did : ""));
  };
  for (size_t i = 0; i < bytes; ++i, ++address) {
    Shadow& byte = shadow_of(address);
    if (!is_ordered(byte.write, in_shared) && !(byte.write.atomic && atomic)) report("race", byte.write, " wrote it");
    if (in_shared && (!writes || atomic) && (!byte.write.any || byte.write.block != running.block))
      report("uninitialised", byte.write, " was the last to write it");
    if (writes) {
      if (!is_ordered(byte.first_read, in_shared)) report("race", byte.first_read, " read it");
      if (!is_ordered(byte.last_read, in_shared)) report("race", byte.last_read, " read it");
      byte.write = now;
    } else if (is_ordered(byte.first_read, in_shared)) {
      byte.first_read = now;  // who is ordered after this read is ordered after the former one
    } else {
      byte.last_read = now;
    }
  }
}

}  // namespace simt

#define SIMT_HOOK extern "C" __attribute__((visibility("hidden")))
#define SIMT_ACCESS(size)                                                                                        \
  SIMT_HOOK void __tsan_read##size(void* p) { simt::touch(p, size, false, false, __builtin_return_address(0)); } \
  SIMT_HOOK void __tsan_write##size(void* p) { simt::touch(p, size, true, false, __builtin_return_address(0)); } \
  SIMT_HOOK void __tsan_unaligned_read##size(void* p) {                                                          \
    simt::touch(p, size, false, false, __builtin_return_address(0));                                             \
  }                                                                                                              \
  SIMT_HOOK void __tsan_unaligned_write##size(void* p) {                                                         \
    simt::touch(p, size, true, false, __builtin_return_address(0));                                              \
  }
SIMT_ACCESS(1)
SIMT_ACCESS(2)
SIMT_ACCESS(4)
SIMT_ACCESS(8)
SIMT_ACCESS(16)
SIMT_HOOK void __tsan_read_range(void* p, size_t bytes) {
  simt::touch(p, bytes, false, false, __builtin_return_address(0));
}
SIMT_HOOK void __tsan_write_range(void* p, size_t bytes) {
  simt::touch(p, bytes, true, false, __builtin_return_address(0));
}
SIMT_HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {  // clang's way with structs
  simt::touch(from, bytes, false, false, __builtin_return_address(0));
  simt::touch(to, bytes, true, false, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
SIMT_HOOK void* __tsan_memset(void* to, int value, size_t bytes) {
  simt::touch(to, bytes, true, false, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}
SIMT_HOOK void __tsan_func_entry(void*) {}
SIMT_HOOK void __tsan_func_exit() {}
SIMT_HOOK void __tsan_init() {}
