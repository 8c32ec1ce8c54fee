#include "contract/mark_file.h"

#include <algorithm>
#include <cstdlib>

namespace birthmark {
namespace {

constexpr std::array<std::uint8_t, 4> kMagic = {'B', 'M', 'R', 'K'};
constexpr std::size_t kHeaderBytes = 28;

std::uint32_t Crc32(std::span<const std::uint8_t> bytes) {
  std::uint32_t crc = ~0U;
  for (std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

std::uint32_t Get(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value |= std::uint32_t{bytes[at + i]} << (8 * i);
  return value;
}

void Put(std::span<std::uint8_t> bytes, std::size_t at, std::uint32_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    bytes[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
}

}  // namespace

const char* Describe(MarkFileStatus status) {
  switch (status) {
    case MarkFileStatus::kOk:
      return "ok";
    case MarkFileStatus::kNotAMarkFile:
      return "this is not a mark file";
    case MarkFileStatus::kOtherContract:
      return "the mark file was made for another version of the arithmetic contract";
    case MarkFileStatus::kTruncated:
      return "the mark file is truncated or has bytes too many";
    case MarkFileStatus::kDamaged:
      return "the mark file is damaged: its checksum does not fit";
    case MarkFileStatus::kGainsOutOfBounds:
      return "the mark file holds gains beyond the contract's bound";
  }
  return "unknown status";
}

bool GainsAreBounded(const std::int16_t (&gains)[kGainRows][kTones]) {
  for (int tone = 0; tone < kTones; ++tone) {
    int sum = 0;
    for (int o = 0; o < kOrbits; ++o) sum += std::abs(int{gains[o][tone]});
    if (sum > kTapSumMax) return false;
    for (int row = kOrbits; row < kGainRows; ++row) {
      if (std::abs(int{gains[row][tone]}) > kTintGainMax) return false;
    }
  }
  return true;
}

MarkFileStatus ParseMarkFile(std::span<const std::uint8_t> bytes, MarkFile& mark) {
  if (bytes.size() < kMagic.size() || !std::equal(kMagic.begin(), kMagic.end(), bytes.begin())) {
    return MarkFileStatus::kNotAMarkFile;
  }
  if (bytes.size() < kHeaderBytes) return MarkFileStatus::kTruncated;
  if (Get(bytes, 4, 2) != kContractVersion || Get(bytes, 6, 2) != kGainRows ||
      Get(bytes, 8, 2) != kTones || Get(bytes, 10, 2) != 0) {
    return MarkFileStatus::kOtherContract;
  }
  if (bytes.size() != kMarkFileBytes) return MarkFileStatus::kTruncated;
  const std::size_t body = kMarkFileBytes - 4;
  if (Get(bytes, body, 4) != Crc32(bytes.first(body))) return MarkFileStatus::kDamaged;
  MarkFile read;
  std::copy_n(bytes.begin() + 12, read.id.size(), read.id.begin());
  std::size_t at = kHeaderBytes;
  for (auto& row : read.gains) {
    for (std::int16_t& gain : row) {
      gain = static_cast<std::int16_t>(static_cast<std::uint16_t>(Get(bytes, at, 2)));
      at += 2;
    }
  }
  if (!GainsAreBounded(read.gains)) return MarkFileStatus::kGainsOutOfBounds;
  mark = read;
  return MarkFileStatus::kOk;
}

std::array<std::uint8_t, kMarkFileBytes> WriteMarkFile(const MarkFile& mark) {
  std::array<std::uint8_t, kMarkFileBytes> bytes = {};
  std::copy(kMagic.begin(), kMagic.end(), bytes.begin());
  Put(bytes, 4, kContractVersion, 2);
  Put(bytes, 6, kGainRows, 2);
  Put(bytes, 8, kTones, 2);
  std::copy(mark.id.begin(), mark.id.end(), bytes.begin() + 12);
  std::size_t at = kHeaderBytes;
  for (const auto& row : mark.gains) {
    for (std::int16_t gain : row) {
      Put(bytes, at, static_cast<std::uint16_t>(gain), 2);
      at += 2;
    }
  }
  Put(bytes, at, Crc32({bytes.data(), at}), 4);
  return bytes;
}

}  // namespace birthmark
