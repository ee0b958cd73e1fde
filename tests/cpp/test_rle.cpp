#include <random>
#include <vector>

#include "check.h"
#include "ops/rle/cpu/encode.h"
#include "ops/rle/cpu/runs.h"
#include "ops/rle/rle.h"

using namespace polarmask;
using namespace polarmask::rle;

namespace {

std::vector<int32_t> runs_of(const std::vector<bool>& pixels, int64_t height, int64_t width) {
  const std::vector<uint8_t> bytes(pixels.begin(), pixels.end());
  ColumnRows rows;
  rows.collect(bytes.data(), height, width);
  std::vector<int32_t> counts;
  rows.append_to(counts, height, width);
  return counts;
}

void runs() {
  using Counts = std::vector<int32_t>;
  CHECK(runs_of({0, 0, 0, 0}, 2, 2) == Counts{4});
  CHECK(runs_of({1, 1, 1, 1}, 2, 2) == Counts{0, 4});
  CHECK(runs_of({0, 1, 1, 1}, 2, 2) == Counts{1, 3});  // joined over the end of a column
  CHECK(runs_of({1, 0, 0, 1}, 2, 2) == Counts{0, 1, 2, 1});
  CHECK(runs_of({}, 0, 5) == Counts{0});
  CHECK(runs_of({}, 5, 0) == Counts{0});
}

void strings() {
  for (const std::vector<int32_t>& counts :
       {std::vector<int32_t>{}, {0}, {5}, {0, 2147483647}, {1, 15, 16, 17, 2147483, 0, 9, 31, 32, 1}}) {
    std::vector<uint8_t> string;
    const auto length = static_cast<int64_t>(counts.size());
    for (int64_t k = 0; k < length; ++k)
      encode_count(counts.data(), k, [&](uint8_t character) { string.push_back(character); });
    std::vector<int32_t> read(string.size());
    const auto chars = static_cast<int64_t>(string.size());
    CHECK(decode_counts(string.data(), chars, 2147483647, read.data()) == length);
    read.resize(length);
    CHECK(read == counts);
    if (length > 1) CHECK(decode_counts(string.data(), chars, 14, read.data()) == -1);
  }
}

void strings_by_vectors() {
  std::mt19937 random(0);
  for (int n = 0; n < 4000; ++n) {
    std::vector<int32_t> counts(random() % 60);
    const auto most = static_cast<uint32_t>(INT32_MAX) >> random() % 31;
    for (int32_t& count : counts) count = static_cast<int32_t>(random() & (random() % 9 == 0 ? INT32_MAX : most));
    const auto length = static_cast<int64_t>(counts.size());
    std::vector<uint8_t> want, got(length * kMaxCharsPerCount);
    for (int64_t k = 0; k < length; ++k)
      encode_count(counts.data(), k, [&](uint8_t character) { want.push_back(character); });
    got.resize(encode_counts(counts.data(), length, got.data()) - got.data());
    CHECK(got == want);
  }
}

}  // namespace

int main() {
  runs();
  strings();
  strings_by_vectors();
  return check::finish();
}
