// What the scheduler tells the race detector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

constexpr size_t kStackBytes = 256 * 1024;  // AddressSanitizer prints its reports on the stack of the fiber

// The thread that runs now. Clocks count the warp barriers that a thread has passed since the last block barrier.
struct Running {
  bool any = false;
  unsigned thread;        // within the block
  uint32_t block;         // within the grid
  uint32_t barrier;       // how many block barriers the block has passed
  uint32_t clock;         // its own, from 1 on
  const uint32_t* heard;  // [32] up to which of their clocks it is ordered after the lanes of its warp
  const char* stack;      // [kStackBytes]
  const char* shared;     // dynamic shared memory
  size_t shared_bytes;
};
extern Running running;

std::string describe_running();
void forget_accesses();  // at the end of a launch

}  // namespace simt
