// Runs CUDA kernels on the CPU: every CUDA thread is a fiber, blocks run one after another, in an order that the test
// chooses. Reported (run() throws std::runtime_error): barriers and warp operations that not all threads reach, and,
// when the kernels are compiled with -fsanitize=thread, data races and uninitialised shared memory (race.cpp).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>

namespace simt {

inline bool emulating = true;  // whether the host functions of polarmask_ops use their kernels

enum class Order { kForward, kBackward, kRandom };

struct Schedule {
  Order order = Order::kForward;
  unsigned seed = 0;
};
extern Schedule schedule;

Schedule parse_schedule(const std::string& text);  // "forward", "backward" or the seed of a random order

// Where in a kernel's source a thread waits.
struct Site {
  const char* file;
  int line;
  const char* what;
};

enum class Meeting { kSync, kBallot, kMatch, kShuffle };

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

// For threads of a running kernel.
void* dynamic_shared();
unsigned lane();
void yield();                                    // lets another thread in, in random order only
uint64_t meet_block(uint64_t value, Site site);  // -> the sum of the values
uint64_t meet_warp(unsigned mask, Meeting kind, uint64_t value, unsigned source, Site site);
void touch(const void* address, size_t bytes, bool writes, bool atomic, const void* code);
[[noreturn]] void fail(const std::string& what);

}  // namespace simt
