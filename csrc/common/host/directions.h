// The directions of all rays at once, for the host functions.
#pragma once

#include <vector>

#include "common/polar.h"

namespace polarmask {

inline std::vector<Vec2<double>> ray_directions(int64_t num_rays) {
  std::vector<Vec2<double>> directions(num_rays);
  for (int64_t k = 0; k < num_rays; ++k) directions[k] = ray_direction(k, num_rays);
  return directions;
}

}  // namespace polarmask
