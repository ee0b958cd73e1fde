// Polar centerness (PolarMask, section 3.3): sqrt(shortest ray / longest ray).
#pragma once

#include <cmath>

#include "common/host_device.h"

namespace polarmask {

// The shortest and the longest ray of a row. `shortest` is 0 if any ray is not finite.
template <class T>
struct Extent {
  T shortest, longest;
};

template <class T>
PM_HD Extent<T> no_rays() {
  return {static_cast<T>(INFINITY), 0};
}

template <class T>
PM_HD Extent<T> join(Extent<T> a, Extent<T> b) {
  return {min_of(a.shortest, b.shortest), max_of(a.longest, b.longest)};
}

template <class T>
PM_HD Extent<T> add_ray(Extent<T> extent, T ray) {
  return join(extent, is_finite(ray) ? Extent<T>{ray, ray} : Extent<T>{0, 0});
}

// 0 where a ray is 0 or not finite.
template <class T>
PM_HD T centerness_of(Extent<T> extent) {
  return extent.shortest > 0 ? std::sqrt(extent.shortest / extent.longest) : T(0);
}

}  // namespace polarmask
