// For lines "chip registers shared threads" (90 48 128 256) of the input: the share of the chip's warps that such a
// kernel can keep resident, in per cent. cuda_occupancy.h computes it without a GPU.
#include <cuda_occupancy.h>

#include <cstdio>

struct Chip {
  int chip, threads, shared_kb, shared_per_block_kb;  // CUDA C++ Programming Guide, "Technical Specifications"
};
constexpr Chip kChips[] = {
    {75, 1024, 64, 64},   {80, 2048, 164, 163},  {86, 1536, 100, 99},  {89, 1536, 100, 99},
    {90, 2048, 228, 227}, {100, 2048, 228, 227}, {120, 1536, 100, 99},
};

int main() {
  int chip, registers, shared, threads;
  while (std::scanf("%d %d %d %d", &chip, &registers, &shared, &threads) == 4) {
    const Chip* found = nullptr;
    for (const Chip& candidate : kChips)
      if (candidate.chip == chip) found = &candidate;
    if (!found) return std::fprintf(stderr, "occupancy: no figures for sm_%d\n", chip), 1;
    cudaOccDeviceProp device;
    device.computeMajor = chip / 10;
    device.computeMinor = chip % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = found->threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = found->shared_kb * 1024;
    device.sharedMemPerBlockOptin = found->shared_per_block_kb * 1024;
    device.reservedSharedMemPerBlock = chip >= 80 ? 1024 : 0;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
    kernel.numBlockBarriers = 1;
    const cudaOccDeviceState state;
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0) != CUDA_OCC_SUCCESS)
      return std::fprintf(stderr, "occupancy: cuda_occupancy.h refuses sm_%d\n", chip), 1;
    std::printf("%d\n", 100 * result.activeBlocksPerMultiprocessor * threads / found->threads);
  }
}
