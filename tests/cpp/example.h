// A mark and a picture to try things on.
#ifndef BIRTHMARK_TESTS_CPP_EXAMPLE_H_
#define BIRTHMARK_TESTS_CPP_EXAMPLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "contract/mark_file.h"

namespace example {

inline birthmark::MarkFile Mark() {
  birthmark::MarkFile mark;
  for (int o = 0; o < birthmark::kGainRows; ++o) {
    for (int t = 0; t < birthmark::kTones; ++t) {
      mark.gains[o][t] = static_cast<std::int16_t>((37 * o + 11 * t) % 301 - 150);
    }
  }
  return mark;
}

// So many bytes of noise.
inline std::vector<std::uint8_t> Noise(std::size_t count) {
  std::vector<std::uint8_t> noise(count);
  std::uint32_t state = 1;
  for (std::uint8_t& value : noise) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::uint8_t>(state >> 24);
  }
  return noise;
}

}  // namespace example

#endif  // BIRTHMARK_TESTS_CPP_EXAMPLE_H_
