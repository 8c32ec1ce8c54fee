// The mark file's parser against a second reading of mark_file.h, on the bytes as they are and
// under a checksum that fits.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "birthmark/birthmark.h"
#include "contract/mark_file.h"
#include "input.h"
#include "tests/cpp/crc32.h"

namespace {

using birthmark::kMarkFileBytes;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using checks::Crc32;
using fuzz::Bytes;

int Number(const Bytes& bytes, std::size_t at) { return bytes[at] + 256 * bytes[at + 1]; }

bool ChecksumFits(const Bytes& bytes) {
  const std::size_t body = bytes.size() - 4;
  const std::uint32_t stored = static_cast<std::uint32_t>(Number(bytes, body)) |
                               static_cast<std::uint32_t>(Number(bytes, body + 2)) << 16;
  return stored == Crc32(std::span(bytes).first(body));
}

bool GainsFit(const Bytes& bytes) {
  for (std::size_t tone = 0; tone < birthmark::kTones; ++tone) {
    int sum = 0;
    for (std::size_t orbit = 0; orbit < birthmark::kOrbits; ++orbit) {
      const int value = Number(bytes, 28 + 2 * (orbit * birthmark::kTones + tone));
      sum += value < 32768 ? value : 65536 - value;
    }
    if (sum > 60000) return false;
    for (std::size_t row = birthmark::kOrbits; row < birthmark::kGainRows; ++row) {
      const int value = Number(bytes, 28 + 2 * (row * birthmark::kTones + tone));
      if (value > 16384 && value < 65536 - 16384) return false;
    }
  }
  return true;
}

MarkFileStatus Expected(const Bytes& bytes) {
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "BMRK", 4) != 0) {
    return MarkFileStatus::kNotAMarkFile;
  }
  if (bytes.size() < 28) return MarkFileStatus::kTruncated;
  if (Number(bytes, 4) != birthmark::kContractVersion || Number(bytes, 6) != birthmark::kGainRows ||
      Number(bytes, 8) != birthmark::kTones || Number(bytes, 10) != 0) {
    return MarkFileStatus::kOtherContract;
  }
  if (bytes.size() != kMarkFileBytes) return MarkFileStatus::kTruncated;
  if (!ChecksumFits(bytes)) return MarkFileStatus::kDamaged;
  return GainsFit(bytes) ? MarkFileStatus::kOk : MarkFileStatus::kGainsOutOfBounds;
}

void Parse(const Bytes& bytes) {
  MarkFile untouched;
  untouched.id.fill(0xA5);
  MarkFile mark = untouched;
  const MarkFileStatus status = birthmark::ParseMarkFile(bytes, mark);
  CHECK(status == Expected(bytes));
  if (status == MarkFileStatus::kOk) {
    const auto written = birthmark::WriteMarkFile(mark);
    CHECK(Bytes(written.begin(), written.end()) == bytes);
  } else {
    CHECK(mark.id == untouched.id);
    CHECK(std::memcmp(mark.gains, untouched.gains, sizeof(mark.gains)) == 0);
  }
  birthmark_context* context = nullptr;
  const birthmark_status code =
      birthmark_create(bytes.empty() ? "" : static_cast<const void*>(bytes.data()), bytes.size(),
                       "scalar", &context);
  CHECK((code == BIRTHMARK_OK) == (status == MarkFileStatus::kOk));
  CHECK((context != nullptr) == (code == BIRTHMARK_OK));
  birthmark_destroy(context);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, data + size);
  Parse(bytes);
  if (size < 4) return 0;
  const std::uint32_t crc = Crc32(std::span(bytes).first(size - 4));
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[size - 4 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
  }
  Parse(bytes);
  return 0;
}
