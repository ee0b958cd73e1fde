// The emulator's own tests: `patterns NAME SCHEDULE` runs one kernel and prints the report, or "right" or "wrong";
// `patterns` the names. They say what is expected: ok_ is legal (some of it subtly so), bug_ is reported in every
// build, race_ by the race detector, memory_ by AddressSanitizer.
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "common/cuda/launch.cuh"

namespace {

using polarmask::dynamic_shared;

// ---- legal

__global__ void ok_block_sum(const int* in, int* out, int count) {
  __shared__ int part[4];
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) sum += in[i];
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(~0u, sum, by);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(out, part[0] + part[1] + part[2] + part[3]);
}

__global__ void ok_histogram(const int* in, int* bins, int count) {
  int* local = dynamic_shared<int>();
  for (int b = threadIdx.x; b < 37; b += blockDim.x) local[b] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    atomicAdd(&local[in[i] % 37], 1);
  __syncthreads();
  for (int b = threadIdx.x; b < 37; b += blockDim.x) atomicAdd(&bins[b], local[b]);
}

__global__ void ok_double_buffer(int* out) {
  __shared__ int buffer[2][64];
  buffer[0][threadIdx.x] = threadIdx.x;
  for (int k = 0; k < 8; ++k) {  // one barrier a round is enough: the other buffer was read before the last one
    __syncthreads();
    buffer[(k + 1) & 1][threadIdx.x] = buffer[k & 1][63 - threadIdx.x] + 1;
  }
  __syncthreads();
  out[threadIdx.x] = buffer[0][threadIdx.x];
}

__global__ void ok_half_warps(int* out) {
  __shared__ int s[32];
  s[threadIdx.x] = threadIdx.x;
  if (threadIdx.x < 16) {
    __syncwarp(0x0000ffffu);
    out[threadIdx.x] = s[15 - threadIdx.x];
  } else {
    __syncwarp(0xffff0000u);
    out[threadIdx.x] = s[47 - threadIdx.x];
  }
}

__global__ void ok_order_is_passed_on(int* out) {  // from lane 0 to 1, from 1 to 2
  __shared__ int s;
  if (threadIdx.x == 0) s = 7;
  if (threadIdx.x < 2) __syncwarp(0b011);
  if (threadIdx.x == 1 || threadIdx.x == 2) __syncwarp(0b110);
  if (threadIdx.x == 2) out[0] = s;
}

__global__ void ok_atomic_then_read(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  atomicAdd(&s, 1);
  __syncthreads();
  out[threadIdx.x] = s;
}

__global__ void ok_bytes_of_one_word(int* out) {
  reinterpret_cast<unsigned char*>(out)[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

__global__ void ok_vote_ends_the_loop(int* out) {
  int left = threadIdx.x % 5, rounds = 0;
  while (__syncthreads_or(left > 0)) {
    if (left > 0) --left;
    ++rounds;
  }
  out[threadIdx.x] = rounds;
}

__global__ void ok_votes(int* out) {
  const int lane = threadIdx.x % 32;
  const unsigned odd = __ballot_sync(~0u, lane & 1), mine = __match_any_sync(~0u, lane % 3);
  const int first = __shfl_sync(~0u, lane, 0, 8), up = __shfl_up_sync(~0u, lane, 1),
            far = __shfl_xor_sync(~0u, lane, 8);
  const bool right = odd == 0xaaaaaaaau && (mine >> lane & 1) && __popc(mine) == (lane % 3 == 2 ? 10 : 11) &&
                     first == (lane & ~7) && up == (lane ? lane - 1 : 0) && far == (lane ^ 8) &&
                     __any_sync(~0u, lane == 3) && !__all_sync(~0u, lane == 3) &&
                     __syncthreads_count(lane == 3) == static_cast<int>(blockDim.x) / 32 && __syncthreads_and(1);
  out[threadIdx.x] = right;
}

__global__ void ok_some_have_left(int* out) {  // a mask may name lanes that have left the kernel
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, static_cast<int>(threadIdx.x), 1);
}

__global__ void ok_large_shared(int* out) {
  int* s = dynamic_shared<int>();
  const int last = 60 * 1024 / 4 - 1;
  s[last - threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = s[last - (threadIdx.x ^ 33)];
}

// ---- reported in every build

__global__ void bug_barrier_in_a_branch(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void bug_two_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void bug_mask_too_wide(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_down_sync(~0u, 1, 1);
  } else {
    __syncwarp(0xffff0000u);
    out[threadIdx.x] = 1;
    __syncwarp();
  }
}

__global__ void bug_not_in_its_own_mask(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0); }

// ---- reported by the race detector

__global__ void race_no_barrier(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void race_overwritten_too_early(int* out) {  // no barrier between a read and the next round's write
  __shared__ int s[64];
  for (int k = 0; k < 4; ++k) {
    s[threadIdx.x] = k;
    __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x + 32) % 64];
  }
}

__global__ void race_no_warp_barrier(int* out) {
  __shared__ int s[32];
  s[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = s[31 - threadIdx.x];
}

__global__ void race_shuffles_are_no_barriers(int* out) {
  __shared__ int s[32];
  s[threadIdx.x] = threadIdx.x;
  const int one = __shfl_xor_sync(~0u, 1, 1);
  out[threadIdx.x] = s[31 - threadIdx.x] + one;
}

__global__ void race_mask_too_narrow(int* out) {
  __shared__ int s[32];
  s[threadIdx.x] = threadIdx.x;
  if (threadIdx.x < 16) __syncwarp(0x0000ffffu);
  out[threadIdx.x] = s[31 - threadIdx.x];
}

__global__ void race_plain_update(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  s += 1;
  __syncthreads();
  out[threadIdx.x] = s;
}

__global__ void race_atomic_beside_plain(int* out) {
  if (threadIdx.x == 0) out[0] = 1;
  if (threadIdx.x == 40) atomicAdd(&out[0], 1);
}

__global__ void race_blocks_on_global(int* out) { atomicAdd(&out[0], out[1] = 1); }

__global__ void race_same_value(int* out) { out[0] = 1; }

__global__ void race_last_block_sums(int* out) {  // legal on hardware; use a second launch instead
  __shared__ bool last;
  out[1 + blockIdx.x] = 1;
  __threadfence();
  if (threadIdx.x == 0) last = atomicAdd(&out[0], 1) == static_cast<int>(gridDim.x) - 1;
  __syncthreads();
  if (last && threadIdx.x == 0)
    for (unsigned b = 0; b < gridDim.x; ++b) out[100] += out[1 + b];
}

__global__ void race_uninitialised(int* out) {
  __shared__ int s[64];
  if (threadIdx.x < 63) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void race_left_by_the_last_block(int* out) {  // shared memory does not outlive a block
  __shared__ int s;
  if (blockIdx.x == 0) s = 1;
  out[blockIdx.x] = s;
}

__global__ void race_too_many_barriers(int* out) {
  for (int k = 0; k < 20'000; ++k) __syncwarp();
  out[threadIdx.x] = 1;
}

// ---- reported by AddressSanitizer

__global__ void memory_past_shared(int* out) {
  int* s = dynamic_shared<int>();
  s[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void memory_past_global(int* out) { out[threadIdx.x + 4096 - 63] = 1; }

__global__ void memory_past_local(int* out) {
  int local[4] = {1, 2, 3, 4};
  volatile unsigned k = 4 + threadIdx.x / 63;
  out[threadIdx.x] = local[k % 8];
}

// ---- how each is launched, and what the legal ones compute

constexpr int kCount = 4096, kInputs = 1000;

std::vector<int> in(kInputs);  // not an array: static memory counts as shared

template <class Which>
int sum_of_inputs(Which&& which) {
  int sum = 0;
  for (int value : in) sum += which(value);
  return sum;
}

struct Pattern {
  const char* name;
  cudaError_t (*launch)(int* out);
  int (*want)(int at) = nullptr;  // out[at], of the legal ones
};

#define KERNEL(kernel, blocks, threads, shared) \
  #kernel, [](int* out) { return polarmask::launch(kernel, blocks, threads, shared, nullptr, out); }
#define KERNEL_OF_INPUTS(kernel, blocks, threads, shared) \
  #kernel, [](int* out) { return polarmask::launch(kernel, blocks, threads, shared, nullptr, in.data(), out, kInputs); }

const Pattern kPatterns[] = {
    {KERNEL_OF_INPUTS(ok_block_sum, 3, 128, 0),
     [](int at) { return at ? 0 : sum_of_inputs([](int value) { return value; }); }},
    {KERNEL_OF_INPUTS(ok_histogram, 3, 64, 37 * sizeof(int)),
     [](int at) { return at < 37 ? sum_of_inputs([=](int value) { return value % 37 == at; }) : 0; }},
    {KERNEL(ok_double_buffer, 1, 64, 0), [](int at) { return at < 64 ? at + 8 : 0; }},
    {KERNEL(ok_half_warps, 1, 32, 0), [](int at) { return at < 16   ? 15 - at
                                                          : at < 32 ? 47 - at
                                                                    : 0; }},
    {KERNEL(ok_order_is_passed_on, 1, 32, 0), [](int at) { return at ? 0 : 7; }},
    {KERNEL(ok_atomic_then_read, 1, 64, 0), [](int at) { return at < 64 ? 64 : 0; }},
    {KERNEL(ok_bytes_of_one_word, 8, 256, 0), [](int at) { return at < 512 ? 0x01010101 : 0; }},
    {KERNEL(ok_vote_ends_the_loop, 1, 64, 0), [](int at) { return at < 64 ? 4 : 0; }},
    {KERNEL(ok_votes, 1, 96, 0), [](int at) { return at < 96 ? 1 : 0; }},
    {KERNEL(ok_some_have_left, 1, 32, 0), [](int at) { return at < 20 ? at ^ 1 : 0; }},
    {KERNEL(ok_large_shared, 1, 64, 60 * 1024), [](int at) { return at < 64 ? at ^ 33 : 0; }},
    {KERNEL(bug_barrier_in_a_branch, 1, 64, 0)},
    {KERNEL(bug_two_barriers, 1, 64, 0)},
    {KERNEL(bug_mask_too_wide, 1, 32, 0)},
    {KERNEL(bug_not_in_its_own_mask, 1, 32, 0)},
    {KERNEL(race_no_barrier, 1, 64, 0)},
    {KERNEL(race_overwritten_too_early, 1, 64, 0)},
    {KERNEL(race_no_warp_barrier, 1, 32, 0)},
    {KERNEL(race_shuffles_are_no_barriers, 1, 32, 0)},
    {KERNEL(race_mask_too_narrow, 1, 32, 0)},
    {KERNEL(race_plain_update, 1, 64, 0)},
    {KERNEL(race_atomic_beside_plain, 1, 64, 0)},
    {KERNEL(race_blocks_on_global, 2, 1, 0)},
    {KERNEL(race_same_value, 1, 64, 0)},
    {KERNEL(race_last_block_sums, 4, 32, 0)},
    {KERNEL(race_uninitialised, 1, 64, 0)},
    {KERNEL(race_left_by_the_last_block, 3, 1, 0)},
    {KERNEL(race_too_many_barriers, 1, 32, 0)},
    {KERNEL(memory_past_shared, 1, 64, 64 * sizeof(int))},
    {KERNEL(memory_past_global, 1, 64, 0)},
    {KERNEL(memory_past_local, 1, 64, 0)},
};

void run(const Pattern& pattern, const char* schedule) {
  simt::schedule = simt::parse_schedule(schedule);
  const auto out = std::make_unique<int[]>(kCount);
  try {
    bool right = pattern.launch(out.get()) == cudaSuccess;
    for (int at = 0; pattern.want && at < kCount; ++at) right &= out[at] == pattern.want(at);
    std::puts(right ? "right" : "wrong");
  } catch (const std::runtime_error& report) {
    std::puts(report.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 0; i < kInputs; ++i) in[i] = i * 7 % 101;
  for (const Pattern& pattern : kPatterns) {
    if (argc != 3) std::puts(pattern.name);
    if (argc == 3 && !std::strcmp(argv[1], pattern.name)) run(pattern, argv[2]);
  }
}
