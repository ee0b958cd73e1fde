// The little that tests of headers need: CHECK(condition) counts and reports, finish() is main's result.
#pragma once

#include <cstdio>

namespace check {

inline int failures = 0, checks = 0;

inline void that(bool holds, const char* condition, const char* file, int line) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("%s:%d: failed: %s\n", file, line, condition);
}

inline int finish() {
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures != 0 || checks == 0;
}

}  // namespace check

#define CHECK(...) check::that((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
