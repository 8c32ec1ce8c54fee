// The mark file: what a device gets. Folded gains and a public name; neither key nor payload.
//
//   bytes  0..3    "BMRK"
//   bytes  4..5    contract version (little-endian, like every number here)
//   bytes  6..7    number of gains for each tone
//   bytes  8..9    number of tones
//   bytes 10..11   0
//   bytes 12..27   mark id: a public name of this one mark, of a claim, customer or device
//   then           gains, 16 bits each, [row][tone] as in arithmetic.h
//   last 4         CRC-32 (IEEE 802.3) of everything before
#ifndef BIRTHMARK_CONTRACT_MARK_FILE_H_
#define BIRTHMARK_CONTRACT_MARK_FILE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "contract/arithmetic.h"

namespace birthmark {

struct MarkFile {
  std::array<std::uint8_t, 16> id = {};
  std::int16_t gains[kGainRows][kTones] = {};
};

inline constexpr std::size_t kMarkFileBytes = 12 + 16 + std::size_t{2} * kGainRows * kTones + 4;

enum class MarkFileStatus {
  kOk,
  kNotAMarkFile,      // other magic
  kOtherContract,     // made for another contract version or family of carriers
  kTruncated,         // size does not fit
  kDamaged,           // checksum does not fit
  kGainsOutOfBounds,  // gains that could leave 16 bits
};

// One line for a person.
const char* Describe(MarkFileStatus status);

// True when the gains' magnitudes keep echo and tint within 16 bits (contract, "Mark").
bool GainsAreBounded(const std::int16_t (&gains)[kGainRows][kTones]);

MarkFileStatus ParseMarkFile(std::span<const std::uint8_t> bytes, MarkFile& mark);
std::array<std::uint8_t, kMarkFileBytes> WriteMarkFile(const MarkFile& mark);

}  // namespace birthmark

#endif  // BIRTHMARK_CONTRACT_MARK_FILE_H_
