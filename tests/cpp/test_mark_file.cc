// The mark file: its layout byte for byte, and the refusal of everything that is not one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "contract/mark_file.h"
#include "tests/cpp/check.h"
#include "tests/cpp/crc32.h"

namespace {

using birthmark::kGainRows;
using birthmark::kMarkFileBytes;
using birthmark::kOrbits;
using birthmark::kTintGainMax;
using birthmark::kTones;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using checks::Crc32;
using Bytes = std::vector<std::uint8_t>;

// The contract's bound on the sum of a tone's magnitudes.
constexpr int kBound = 60000;

constexpr MarkFileStatus kStatuses[] = {
    MarkFileStatus::kOk,        MarkFileStatus::kNotAMarkFile, MarkFileStatus::kOtherContract,
    MarkFileStatus::kTruncated, MarkFileStatus::kDamaged,      MarkFileStatus::kGainsOutOfBounds};

MarkFileStatus StatusOf(std::span<const std::uint8_t> bytes) {
  MarkFile mark;
  return birthmark::ParseMarkFile(bytes, mark);
}

Bytes Written(const MarkFile& mark) {
  const auto bytes = birthmark::WriteMarkFile(mark);
  return Bytes(bytes.begin(), bytes.end());
}

void Append(Bytes& bytes, std::uint32_t value, int count) {
  for (int i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

// Makes the checksum fit whatever comes before it.
Bytes Sealed(Bytes bytes) {
  const std::span<std::uint8_t> checksum = std::span(bytes).last(4);
  const std::uint32_t crc = Crc32(std::span(bytes).first(bytes.size() - 4));
  for (std::size_t i = 0; i < 4; ++i) checksum[i] = static_cast<std::uint8_t>(crc >> (8 * i));
  return bytes;
}

// The layout that mark_file.h describes, written without the code under test.
Bytes Expected(const MarkFile& mark) {
  Bytes bytes = {'B', 'M', 'R', 'K'};
  Append(bytes, birthmark::kContractVersion, 2);
  Append(bytes, kGainRows, 2);
  Append(bytes, kTones, 2);
  Append(bytes, 0, 2);
  bytes.insert(bytes.end(), mark.id.begin(), mark.id.end());
  for (const auto& orbit : mark.gains) {
    for (std::int16_t gain : orbit) Append(bytes, static_cast<std::uint16_t>(gain), 2);
  }
  Append(bytes, 0, 4);
  return Sealed(bytes);
}

// Gains of both signs; no two neighbours are alike.
MarkFile Example() {
  MarkFile mark;
  for (std::size_t i = 0; i < mark.id.size(); ++i) mark.id[i] = static_cast<std::uint8_t>(17 * i);
  for (int o = 0; o < kGainRows; ++o) {
    for (int tone = 0; tone < kTones; ++tone) {
      mark.gains[o][tone] = static_cast<std::int16_t>((o * 977 + tone * 331) % 6001 - 3000);
    }
  }
  return mark;
}

void ComesBackAsItWas() {
  CHECK(Crc32(std::span(reinterpret_cast<const std::uint8_t*>("123456789"), 9)) == 0xCBF43926);
  const MarkFile mark = Example();
  const Bytes bytes = Written(mark);
  CHECK(bytes.size() == kMarkFileBytes);
  CHECK(bytes == Expected(mark));
  MarkFile found;
  CHECK(birthmark::ParseMarkFile(bytes, found) == MarkFileStatus::kOk);
  CHECK(found.id == mark.id);
  CHECK(std::memcmp(found.gains, mark.gains, sizeof(mark.gains)) == 0);
}

void EveryChangeOfOneByteIsRefused() {
  const Bytes bytes = Written(Example());
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (int change = 1; change < 256; ++change) {
      Bytes changed = bytes;
      changed[at] = static_cast<std::uint8_t>(changed[at] ^ change);
      const MarkFileStatus status = StatusOf(changed);
      CHECK(status != MarkFileStatus::kOk);
      if (at < 4) CHECK(status == MarkFileStatus::kNotAMarkFile);
      if (at >= 12) CHECK(status == MarkFileStatus::kDamaged);
    }
  }
}

void EveryOtherSizeIsRefused() {
  const Bytes bytes = Written(Example());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK(StatusOf(std::span(bytes).first(size)) != MarkFileStatus::kOk);
    if (size < 5) continue;
    // A checksum that fits the shorter content helps nobody.
    Bytes shorter(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(StatusOf(Sealed(shorter)) != MarkFileStatus::kOk);
  }
  CHECK(StatusOf(std::span(bytes).first(bytes.size() - 1)) == MarkFileStatus::kTruncated);
  for (std::size_t more : {1, 2, 4, 576}) {
    Bytes longer = bytes;
    longer.insert(longer.end(), more, std::uint8_t{0});
    CHECK(StatusOf(longer) == MarkFileStatus::kTruncated);
    CHECK(StatusOf(Sealed(longer)) == MarkFileStatus::kTruncated);
  }
}

// The header's numbers, each off by one or more, under a checksum that fits.
void OtherContractsAreRefused() {
  const Bytes bytes = Written(Example());
  for (std::size_t at = 0; at < 12; ++at) {
    for (int change = 1; change < 256; ++change) {
      Bytes other = bytes;
      other[at] = static_cast<std::uint8_t>(other[at] ^ change);
      const MarkFileStatus status = StatusOf(Sealed(other));
      if (at < 4) {
        CHECK(status == MarkFileStatus::kNotAMarkFile);
      } else if (at < 10) {
        CHECK(status == MarkFileStatus::kOtherContract);
      } else {
        CHECK(status != MarkFileStatus::kOk);
      }
    }
  }
}

void CheckGains(const MarkFile& mark, bool bounded) {
  CHECK(birthmark::GainsAreBounded(mark.gains) == bounded);
  CHECK(StatusOf(Expected(mark)) ==
        (bounded ? MarkFileStatus::kOk : MarkFileStatus::kGainsOutOfBounds));
}

void GainsBeyondTheBoundAreRefused() {
  CheckGains(MarkFile{}, true);
  for (int tone = 0; tone < kTones; ++tone) {
    for (int sign : {-1, 1}) {
      for (int o = 0; o < kOrbits; ++o) {
        const int next = (o + 1) % kOrbits;
        MarkFile mark;
        mark.gains[o][tone] = static_cast<std::int16_t>(sign * 32767);
        mark.gains[next][tone] = static_cast<std::int16_t>(kBound - 32767);
        CheckGains(mark, true);
        mark.gains[next][tone] += 1;
        CheckGains(mark, false);
        mark.gains[next][tone] = static_cast<std::int16_t>(32767 - kBound - 1);
        CheckGains(mark, false);
      }
      // Every gain counts: the same sum spread over all orbits.
      MarkFile spread;
      for (int o = 0; o < kOrbits; ++o) {
        spread.gains[o][tone] = static_cast<std::int16_t>(sign * (kBound / kOrbits));
      }
      CheckGains(spread, true);
      spread.gains[kOrbits - 1][tone] =
          static_cast<std::int16_t>(sign * (kBound - (kOrbits - 1) * (kBound / kOrbits) + 1));
      CheckGains(spread, false);
    }
    // Each gain of a tint has a bound of its own.
    for (int row = kOrbits; row < kGainRows; ++row) {
      for (int sign : {-1, 1}) {
        MarkFile tint;
        tint.gains[row][tone] = static_cast<std::int16_t>(sign * kTintGainMax);
        CheckGains(tint, true);
        tint.gains[row][tone] = static_cast<std::int16_t>(sign * (kTintGainMax + 1));
        CheckGains(tint, false);
      }
    }
    // The magnitude of -32768 is 32768, and all extremes together do not wrap around.
    MarkFile lowest;
    lowest.gains[3][tone] = INT16_MIN;
    lowest.gains[5][tone] = static_cast<std::int16_t>(kBound - 32768);
    CheckGains(lowest, true);
    lowest.gains[5][tone] += 1;
    CheckGains(lowest, false);
    for (std::int16_t extreme : {std::int16_t{INT16_MIN}, std::int16_t{INT16_MAX}}) {
      MarkFile all;
      for (auto& orbit : all.gains) orbit[tone] = extreme;
      CheckGains(all, false);
    }
  }
}

void EveryStatusHasItsOwnLine() {
  for (MarkFileStatus status : kStatuses) {
    const char* const line = birthmark::Describe(status);
    CHECK(line != nullptr);
    CHECK(std::strlen(line) > 0);
    CHECK(std::strchr(line, '\n') == nullptr);
    CHECK(std::count_if(std::begin(kStatuses), std::end(kStatuses), [&](MarkFileStatus other) {
            return std::strcmp(birthmark::Describe(other), line) == 0;
          }) == 1);
  }
}

}  // namespace

int main() {
  ComesBackAsItWas();
  EveryChangeOfOneByteIsRefused();
  EveryOtherSizeIsRefused();
  OtherContractsAreRefused();
  GainsBeyondTheBoundAreRefused();
  EveryStatusHasItsOwnLine();
  std::puts("mark_file: ok");
  return 0;
}
