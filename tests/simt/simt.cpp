#include "simt.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "cuda_runtime.h"
#include "scheduler.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Kernels see these as constants, under CUDA's names. Not zero: that would lay them among the shared variables.
namespace simt {
uint3 thread_index asm("threadIdx"){~0u, ~0u, ~0u}, block_index asm("blockIdx"){~0u, ~0u, ~0u};
dim3 block_size asm("blockDim"), grid_size asm("gridDim");
}  // namespace simt

// Pushes the registers that the ABI wants kept, saves the stack pointer, loads the other one, pops.
extern "C" void simt_switch_stack(void** save, void* load);
#if defined(__x86_64__)
constexpr int kSavedRegisters = 6;
asm(R"(.text
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack,@function
simt_switch_stack:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
)");
#else
#error "simt_switch_stack is written for x86-64 only"
#endif

namespace simt {

Schedule schedule;
Running running;

namespace {

constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBarrier, kInWarp, kLeft };

struct Thread {
  State state;
  uint3 index;
  Site site;  // from here on: what it brings to a meeting, or takes from it
  unsigned mask;
  Meeting kind;
  unsigned source;
  uint64_t value, result;
  uint32_t clock, heard[kWarp];  // since the last block barrier, see Running
};

struct Warp {
  unsigned waiting, left;  // lanes in a meeting; lanes that have left the kernel or never were
};

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* stack_pointer;
};

std::mutex one_launch;
const std::function<void()>* kernel;
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Fiber> fibers;
std::deque<unsigned> ready;
std::mt19937 random_bits;
unsigned current, arrived;
std::unique_ptr<char[]> shared;
size_t shared_size;
std::string failure;
void* scheduler;              // its stack pointer
const void* scheduler_stack;  // for AddressSanitizer
[[maybe_unused]] size_t scheduler_stack_bytes;

void change_stack(void** save, void* load, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, stack, bytes);
  simt_switch_stack(save, load);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
  simt_switch_stack(save, load);
#endif
}

void suspend() {
  running.any = false;
  change_stack(&fibers[current].stack_pointer, scheduler, scheduler_stack, scheduler_stack_bytes);
}

std::string describe(const Thread& thread) {
  const auto text = [](uint3 at) {
    return "(" + std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z) + ")";
  };
  return "thread " + text(thread.index) + " of block " + text(block_index);
}

std::string describe(const Site& site) {
  return std::string(site.what) + " at " + site.file + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && !std::strcmp(a.file, b.file) && !std::strcmp(a.what, b.what);
}

void wake(unsigned thread) {
  threads[thread].state = State::kReady;
  ready.push_back(thread);
}

unsigned take_ready() {
  if (schedule.order == Order::kRandom) std::swap(ready[random_bits() % ready.size()], ready.back());
  const bool first = schedule.order == Order::kForward;
  const unsigned thread = first ? ready.front() : ready.back();
  first ? ready.pop_front() : ready.pop_back();
  return thread;
}

void resume(unsigned t) {
  const Thread& thread = threads[t];
  const Fiber& fiber = fibers[t];
  current = t;
  thread_index = thread.index;
  running.thread = t;
  running.clock = thread.clock;
  running.heard = thread.heard;
  running.stack = fiber.stack.get();
  running.any = true;
  change_stack(&scheduler, fiber.stack_pointer, fiber.stack.get(), kStackBytes);
}

// Lets go the lanes that wait together with thread t, if everyone they wait for is there.
void settle(unsigned t) {
  const Thread& one = threads[t];
  Warp& warp = warps[t / kWarp];
  const unsigned here = one.mask & ~warp.left;
  if (here & ~warp.waiting) return;
  Thread* const lanes = &threads[t / kWarp * kWarp];
  const auto each = [&](auto&& body) {
    for (unsigned rest = here; rest; rest &= rest - 1) body(static_cast<unsigned>(__builtin_ctz(rest)));
  };
  bool together = true;
  each([&](unsigned i) { together &= lanes[i].mask == one.mask && same(lanes[i].site, one.site); });
  if (!together) return;
  uint32_t heard[kWarp] = {};
  each([&](unsigned i) {
    Thread& lane = lanes[i];
    lane.result = 0;
    switch (lane.kind) {
      case Meeting::kSync:
        lane.heard[i] = lane.clock;
        for (unsigned k = 0; k < kWarp; ++k) heard[k] = std::max(heard[k], lane.heard[k]);
        break;
      case Meeting::kShuffle:  // from a lane that does not take part: rubbish, as on hardware
        lane.result = here >> lane.source & 1 ? lanes[lane.source].value : ~uint64_t{0};
        break;
      case Meeting::kBallot: each([&](unsigned k) { lane.result |= lanes[k].value << k; }); break;
      case Meeting::kMatch:
        each([&](unsigned k) { lane.result |= uint64_t{lanes[k].value == lane.value} << k; });
        break;
    }
  });
  each([&](unsigned i) {
    if (lanes[i].kind == Meeting::kSync) {
      std::copy(heard, heard + kWarp, lanes[i].heard);
      ++lanes[i].clock;
    }
    wake(t / kWarp * kWarp + i);
  });
  warp.waiting &= ~here;
}

// The lowest frame of every fiber.
void thread_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  (*kernel)();
  threads[current].state = State::kLeft;
  warps[current / kWarp].left |= 1u << lane();
  const unsigned first = current / kWarp * kWarp;
  const unsigned end = std::min<unsigned>(first + kWarp, static_cast<unsigned>(threads.size()));
  for (unsigned t = first; t < end; ++t)
    if (threads[t].state == State::kInWarp) settle(t);
  suspend();
}

void start(unsigned t) {
  Fiber& fiber = fibers[t];
  char* const stack = fiber.stack.get();
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kStackBytes);  // the last thread's frames were never left
#endif
  const auto top = reinterpret_cast<uintptr_t>(stack + kStackBytes) & ~uintptr_t{15};
  auto* const returns_to = reinterpret_cast<void**>(top) - 2;  // the stack is aligned as after a call
  *returns_to = reinterpret_cast<void*>(thread_main);
  fiber.stack_pointer = returns_to - kSavedRegisters;
  wake(t);
}

std::string who_waits_in_vain() {
  const auto waits = std::find_if(threads.begin(), threads.end(), [](auto& t) { return t.state != State::kLeft; });
  if (waits == threads.end()) return "";
  std::string text = describe(*waits) + " waits in vain in " + describe(waits->site);
  const auto left = std::find_if(threads.begin(), threads.end(), [](auto& t) { return t.state == State::kLeft; });
  if (left != threads.end()) text += "; " + describe(*left) + " has left the kernel";
  const auto other = std::find_if(waits, threads.end(), [&](auto& t) {
    return t.state != State::kLeft && (!same(t.site, waits->site) || t.mask != waits->mask);
  });
  if (other != threads.end()) text += "; " + describe(*other) + " waits in " + describe(other->site);
  return text;
}

void run_block(unsigned block) {
  const unsigned count = block_size.x * block_size.y * block_size.z;
  running.block = block;
  running.barrier = 0;
  block_index = {block % grid_size.x, block / grid_size.x % grid_size.y, block / (grid_size.x * grid_size.y)};
  threads.assign(count, Thread{});
  warps.assign((count + kWarp - 1) / kWarp, Warp{});
  if (count % kWarp) warps.back().left = ~0u << count % kWarp;
  ready.clear();
  arrived = 0;
  std::fill_n(shared.get(), shared_size, static_cast<char>(0xff));  // NaN in floats
  while (fibers.size() < count) fibers.emplace_back();
  for (unsigned t = 0; t < count; ++t) {
    threads[t].index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
    threads[t].clock = 1;
    start(t);
  }
  while (!ready.empty() && failure.empty()) resume(take_ready());
  if (failure.empty()) failure = who_waits_in_vain();
}

std::vector<unsigned> order_of_blocks() {
  std::vector<unsigned> blocks(grid_size.x * grid_size.y * grid_size.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (schedule.order == Order::kBackward) std::reverse(blocks.begin(), blocks.end());
  if (schedule.order == Order::kRandom) std::shuffle(blocks.begin(), blocks.end(), random_bits);
  return blocks;
}

}  // namespace

Schedule parse_schedule(const std::string& text) {
  if (text == "forward") return {Order::kForward, 0};
  if (text == "backward") return {Order::kBackward, 0};
  try {
    return {Order::kRandom, static_cast<unsigned>(std::stoul(text))};
  } catch (const std::exception&) {
    throw std::invalid_argument("expected a schedule: forward, backward or the seed of a random order, got " + text);
  }
}

std::string describe_running() { return describe(threads[current]); }
void* dynamic_shared() { return shared.get(); }
unsigned lane() { return current % kWarp; }

void fail(const std::string& what) {
  failure = what;
  for (;;) suspend();  // never resumed: run() throws
}

void yield() {
  if (schedule.order != Order::kRandom) return;
  wake(current);
  suspend();
}

uint64_t meet_block(uint64_t value, Site site) {
  Thread& self = threads[current];
  self.state = State::kAtBarrier;
  self.value = value;
  self.site = site;
  if (++arrived == threads.size()) {
    uint64_t sum = 0;
    for (const Thread& thread : threads) {
      sum += thread.value;
      if (!same(thread.site, site))
        fail("divergent barrier: " + describe(thread) + " in " + describe(thread.site) + ", " + describe(self) +
             " in " + describe(site));
    }
    arrived = 0;
    ++running.barrier;
    for (unsigned t = 0; t < threads.size(); ++t) {
      threads[t].result = sum;
      threads[t].clock = 1;
      std::fill_n(threads[t].heard, kWarp, 0u);
      wake(t);
    }
  }
  suspend();
  return self.result;
}

uint64_t meet_warp(unsigned mask, Meeting kind, uint64_t value, unsigned source, Site site) {
  Thread& self = threads[current];
  if (!(mask >> lane() & 1)) fail(describe(self) + " is not in its own mask, " + describe(site));
  self.state = State::kInWarp;
  self.site = site;
  self.mask = mask;
  self.kind = kind;
  self.source = source;
  self.value = value;
  warps[current / kWarp].waiting |= 1u << lane();
  settle(current);
  suspend();
  return self.result;
}

size_t& dynamic_shared_limit(const void* of_kernel) {
  static std::unordered_map<const void*, size_t> limits;
  return limits.try_emplace(of_kernel, 48 * 1024).first->second;
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, size_t shared_limit) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t count = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (count == 0 || count > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  return config.dynamicSmemBytes > shared_limit ? cudaErrorInvalidValue : cudaSuccess;
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> alone(one_launch);
  kernel = &thread;
  grid_size = grid;
  block_size = block;
  shared.reset(new char[shared_bytes]);  // no byte more, so that AddressSanitizer sees the end
  shared_size = shared_bytes;
  running.shared = shared.get();
  running.shared_bytes = shared_bytes;
  failure.clear();
  random_bits.seed(schedule.seed);
  for (unsigned b : order_of_blocks()) {
    run_block(b);
    if (!failure.empty()) break;
  }
  forget_accesses();
  if (!failure.empty()) throw std::runtime_error("simt: " + failure);
}

}  // namespace simt
