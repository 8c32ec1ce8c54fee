// What a fuzz target is made of: choices that are read off the fuzzer's bytes, and a check.
#ifndef BIRTHMARK_TESTS_FUZZ_INPUT_H_
#define BIRTHMARK_TESTS_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "tests/cpp/check.h"

namespace fuzz {

using Bytes = std::vector<std::uint8_t>;

// Reads choices off the front. When the bytes run out every choice is 0, so that short inputs are
// whole ones.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  int Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  std::uint32_t Word() {
    std::uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | static_cast<std::uint32_t>(Byte());
    return word;
  }
  // Both ends may come.
  int Between(int least, int most) {
    const std::uint32_t range = static_cast<std::uint32_t>(most - least) + 1;
    return least + static_cast<int>(Word() % range);
  }
  bool OneIn(int many) { return Byte() % many == many - 1; }
  template <class T, std::size_t kCount>
  T Of(const T (&choices)[kCount]) {
    return choices[static_cast<std::size_t>(Byte()) % kCount];
  }
  bool empty() const { return size_ == 0; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// Noise: what nobody gains from choosing byte by byte.
class Noise {
 public:
  explicit Noise(std::uint32_t seed) : state_(seed * 2654435761U + 1) {}
  std::uint32_t operator()() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state_ >> 32);
  }

 private:
  std::uint64_t state_;
};

}  // namespace fuzz

#endif  // BIRTHMARK_TESTS_FUZZ_INPUT_H_
