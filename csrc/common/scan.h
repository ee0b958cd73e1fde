// Offsets from lengths: the scratch memory of launch_offsets().
#pragma once

#include "common/host_device.h"

namespace polarmask {

constexpr int64_t kScanScratch = 256;  // elements

}  // namespace polarmask
