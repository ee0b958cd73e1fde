// Where rows begin whose lengths the kernels have found.
#pragma once

#include "common/host_device.h"

namespace polarmask {

constexpr int64_t kScanScratch = 256;  // elements

}  // namespace polarmask
