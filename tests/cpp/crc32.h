// The checksum of mark files, for tests: an opinion of their own.
#ifndef BIRTHMARK_TESTS_CPP_CRC32_H_
#define BIRTHMARK_TESTS_CPP_CRC32_H_

#include <cstdint>
#include <span>

namespace checks {

// CRC-32 of IEEE 802.3, bit by bit.
inline std::uint32_t Crc32(std::span<const std::uint8_t> bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320 : 0);
  }
  return ~crc;
}

}  // namespace checks

#endif  // BIRTHMARK_TESTS_CPP_CRC32_H_
