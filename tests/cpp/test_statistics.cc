// Fields, statistics, and echoes of every reach: each kernel's are those of the plain one, and
// follow from each other by the contract's own sums (steps 9 to 13, 19 and 20), written here once
// more.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "embed/embedder.h"
#include "tests/cpp/check.h"
#include "tests/cpp/example.h"

namespace {

using birthmark::Element;
using birthmark::Embedder;
using birthmark::Isa;
using birthmark::kAllStatistics;
using birthmark::kOrbits;
using birthmark::kStatistics;
using birthmark::kTones;
using birthmark::Source;
using birthmark::Status;

using Bytes = std::vector<std::uint8_t>;
using Sums = std::vector<std::int64_t>;

// Flat parts beside noise of all strengths, from black to white: all tones, also at the ends.
Bytes Picture(int width, int height) {
  Bytes picture = example::Noise(std::size_t{3} * static_cast<std::size_t>(width * height));
  for (std::size_t i = 0; i < picture.size(); ++i) {
    const int y = static_cast<int>(i) / (3 * width), x = static_cast<int>(i) / 3 % width;
    const int base = 255 * x / std::max(width - 1, 1);
    const int noise = (int{picture[i]} - 128) * (y % 24) / 24;
    picture[i] = static_cast<std::uint8_t>(std::clamp(base + noise, 0, 255));
  }
  return picture;
}

Source SourceOf(const std::uint8_t* data, Element element, int width, int height) {
  Source source;
  source.element = element;
  source.width = width;
  source.height = height;
  const std::ptrdiff_t size = element == Element::kFloat32 ? 4 : 1;
  for (int c = 0; c < 3; ++c) source.channel[c] = {data + c * size, 3 * size * width, 3 * size};
  return source;
}

// The fields of a picture, row by row.
struct Fields {
  std::vector<std::int16_t> texture, orbits, tint;
  Bytes tone;
  bool operator==(const Fields&) const = default;

  Fields(const Embedder& embedder, const Source& source) {
    const std::size_t plane =
        static_cast<std::size_t>(source.width) * static_cast<std::size_t>(source.height);
    texture.resize(plane);
    orbits.resize(kOrbits * plane);
    tint.resize((birthmark::kTintFields - 1) * plane);
    tone.resize(plane);
    const auto work = birthmark::NewWorkspace();
    CHECK(work != nullptr);
    CHECK(embedder.kernel().fields(
        {source, texture.data(), tone.data(), orbits.data(), tint.data()}, *work));
  }
};

// The taps of an orbit, on a texture that ends with the picture: only for pixels whose taps are in.
int OrbitSum(const Fields& fields, int width, int x, int y, birthmark::Orbit orbit) {
  std::vector<std::pair<int, int>> taps;
  for (const auto& [i, j] : {std::pair{orbit.i, orbit.j}, std::pair{orbit.j, orbit.i}}) {
    for (const int across : {i, -i}) {
      for (const int down : {j, -j}) taps.emplace_back(across, down);
    }
  }
  std::sort(taps.begin(), taps.end());
  taps.erase(std::unique(taps.begin(), taps.end()), taps.end());
  int sum = 0;
  for (const auto& [across, down] : taps) {
    sum += fields.texture[static_cast<std::size_t>((y + birthmark::kTapDistance * down) * width +
                                                   x + birthmark::kTapDistance * across)];
  }
  return sum;
}

void FieldsFollowTheContract(const Fields& fields, const Bytes& picture, int width, int height) {
  const std::size_t plane = fields.tone.size();
  constexpr int kReach = birthmark::kEchoReach;
  for (int y = kReach; y < height - kReach; ++y) {
    for (int x = kReach; x < width - kReach; ++x) {
      const std::size_t at = static_cast<std::size_t>(y * width + x);
      for (int o = 0; o < kOrbits; ++o) {
        CHECK(fields.orbits[static_cast<std::size_t>(o) * plane + at] ==
              OrbitSum(fields, width, x, y, birthmark::kOrbitTable.at[o]));
      }
    }
  }
  for (std::size_t at = 0; at < plane; ++at) {
    const int red = picture[3 * at], green = picture[3 * at + 1], blue = picture[3 * at + 2];
    constexpr int kMost = birthmark::kHueMaxQ6;
    CHECK(fields.tint[at] == std::clamp(64 * (blue - green), -kMost, kMost));
    CHECK(fields.tint[plane + at] == std::clamp(64 * (red - green), -kMost, kMost));
    const int roughness = fields.tint[2 * plane + at];
    CHECK(roughness % 64 == 0 && roughness >= 0 && roughness <= 64 * birthmark::kRoughnessMax);
  }
}

// Step 19: which pixels lie on a line.
std::vector<bool> LinesOf(const Bytes& picture, int width, int height) {
  constexpr int kReach = birthmark::kLineReach, kMargin = kReach + 1;
  const auto luma = [&](int x, int y) {
    const std::size_t at = static_cast<std::size_t>(std::clamp(y, 0, height - 1) * width +
                                                    std::clamp(x, 0, width - 1));
    const auto part = [&](std::size_t c, int weight) {
      return birthmark::MulRound15(64 * picture[3 * at + c], weight);
    };
    return ((part(0, 9798) + part(1, 19235) + part(2, 3735) + 8) >> 4) - 512;
  };
  const int columns = width + 2 * kMargin, rows = height + 2 * kMargin;
  const auto place = [&](int x, int y) {
    return static_cast<std::size_t>((y + kMargin) * columns + x + kMargin);
  };
  std::vector<int> smooth(static_cast<std::size_t>(columns * rows));
  constexpr int kTaps[] = {1, 4, 8, 12, 14, 12, 8, 4, 1};
  for (int y = -kMargin; y < height + kMargin; ++y) {
    for (int x = -kMargin; x < width + kMargin; ++x) {
      int low = 0;
      for (int down = -4; down <= 4; ++down) {
        for (int across = -4; across <= 4; ++across) {
          low += kTaps[down + 4] * kTaps[across + 4] * luma(x + across, y + down);
        }
      }
      smooth[place(x, y)] = (low + 127) >> 8;
    }
  }
  std::vector<bool> lines;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      int xx = 0, yy = 0, xy = 0;
      for (int j = y - kReach; j <= y + kReach; ++j) {
        for (int i = x - kReach; i <= x + kReach; ++i) {
          const int dx = (smooth[place(i + 1, j)] - smooth[place(i - 1, j)]) / 8;
          const int dy = (smooth[place(i, j + 1)] - smooth[place(i, j - 1)]) / 8;
          xx += dx * dx;
          yy += dy * dy;
          xy += dx * dy;
        }
      }
      const float a = static_cast<float>(xx - yy), b = static_cast<float>(2 * xy);
      const float all = static_cast<float>(xx + yy + birthmark::kLineFloor);
      lines.push_back(a * a + b * b > birthmark::kLineShare * (all * all));
    }
  }
  return lines;
}

// Step 20 over the rows [first, last).
Sums SumsOf(const Fields& fields, const std::vector<bool>& lines, int width, int first, int last) {
  const std::size_t plane = fields.tone.size();
  Sums sums(kAllStatistics);
  for (std::size_t at = static_cast<std::size_t>(first * width);
       at < static_cast<std::size_t>(last * width); ++at) {
    std::int64_t* const row =
        &sums[((lines[at] ? kTones : 0) + std::size_t{fields.tone[at]}) * kStatistics];
    const std::int64_t w = fields.texture[at];
    for (int o = 0; o < kOrbits; ++o) {
      row[o] += w * (fields.orbits[static_cast<std::size_t>(o) * plane + at] >> 4);
    }
    row[kOrbits] += w * w;
  }
  return sums;
}

void StatisticsFollowFromTheFields(Embedder& embedder, const Source& source, const Fields& fields,
                                   const std::vector<bool>& lines) {
  const int width = source.width, height = source.height;
  Sums found(kAllStatistics);
  CHECK(embedder.AddStatistics(source, found.data()) == Status::kOk);
  CHECK(found == SumsOf(fields, lines, width, 0, height));
  // Stripes are added to what is there, and make up the whole.
  Sums stripes(found.size(), 1);
  for (int first = 0; first < height; first += 7) {
    const int last = std::min(first + 7, height);
    const Sums before = stripes;
    CHECK(embedder.AddStatistics(source, first, last, stripes.data()) == Status::kOk);
    const Sums of_stripe = SumsOf(fields, lines, width, first, last);
    for (std::size_t i = 0; i < stripes.size(); ++i) {
      CHECK(stripes[i] == before[i] + of_stripe[i]);
    }
  }
  for (std::size_t i = 0; i < stripes.size(); ++i) CHECK(stripes[i] == found[i] + 1);
  for (const auto& [first, last] : {std::pair{-1, 1}, {0, 0}, {1, 0}, {0, height + 1}}) {
    CHECK(embedder.AddStatistics(source, first, last, stripes.data()) == Status::kWindow);
  }
}

// Steps 11 to 13 without a tint, for a mark whose farthest orbit lies so far away.
void EchoesOfEveryReach(Isa isa, const Source& source, const Fields& fields, const Bytes& picture) {
  const std::size_t plane = fields.tone.size();
  for (int farthest = 1; farthest <= birthmark::kRadius; ++farthest) {
    birthmark::MarkFile mark;
    for (int o = 0; o < kOrbits; ++o) {
      if (birthmark::kOrbitTable.at[o].i > farthest) continue;
      for (int t = 0; t < kTones; ++t) {
        mark.gains[o][t] = static_cast<std::int16_t>(97 * (o + t) % 1999 - 999);
      }
    }
    Bytes out(picture.size());
    birthmark::Target target;
    for (int c = 0; c < 3; ++c) target.plane[c] = {out.data() + c, 3 * source.width, 3};
    Embedder embedder(mark, isa);
    CHECK(embedder.Embed(source, target, {0, source.height, 0, source.width}) == Status::kOk);
    for (std::size_t at = 0; at < plane; ++at) {
      int echo = 0;
      for (int o = 0; o < kOrbits; ++o) {
        echo += birthmark::MulRound15(fields.orbits[static_cast<std::size_t>(o) * plane + at],
                                      mark.gains[o][fields.tone[at]]);
      }
      echo = std::clamp(echo, -birthmark::kResidualMaxQ6, birthmark::kResidualMaxQ6);
      for (std::size_t i = 3 * at; i < 3 * at + 3; ++i) {
        CHECK(out[i] == std::clamp((64 * picture[i] + echo + 32) >> 6, 0, 255));
      }
    }
  }
}

void ValuesThatAreNotFiniteAreRefused(Embedder& embedder) {
  constexpr int kWidth = 37, kHeight = 30;
  std::vector<float> values(std::size_t{3} * kWidth * kHeight, 0.5f);
  const Source source = SourceOf(reinterpret_cast<const std::uint8_t*>(values.data()),
                                 Element::kFloat32, kWidth, kHeight);
  Sums sums(kAllStatistics);
  CHECK(embedder.AddStatistics(source, sums.data()) == Status::kOk);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{1234}, values.size() - 1}) {
      values[at] = bad;
      CHECK(embedder.AddStatistics(source, sums.data()) == Status::kNotFinite);
      values[at] = 0.5f;
    }
  }
}

}  // namespace

int main() {
  constexpr std::pair<int, int> kSizes[] = {{1, 1}, {7, 3}, {61, 48}, {975, 25}};
  for (const auto& [width, height] : kSizes) {
    const Bytes picture = Picture(width, height);
    const Source source = SourceOf(picture.data(), Element::kUint8, width, height);
    const Embedder plain(std::nullopt, Isa::kScalar);
    const Fields expected(plain, source);
    const std::vector<bool> lines = LinesOf(picture, width, height);
    FieldsFollowTheContract(expected, picture, width, height);
    if (width > 900) {
      for (int tone : {0, 7, 15}) CHECK(std::ranges::count(expected.tone, tone) > 0);
      CHECK(std::ranges::count(lines, true) > 0 && std::ranges::count(lines, false) > 0);
    }
    for (Isa isa : birthmark::kAllIsas) {
      if (!birthmark::IsaIsUsable(isa)) continue;
      Embedder embedder(std::nullopt, isa);
      CHECK(Fields(embedder, source) == expected);
      StatisticsFollowFromTheFields(embedder, source, expected, lines);
      EchoesOfEveryReach(isa, source, expected, picture);
      ValuesThatAreNotFiniteAreRefused(embedder);
    }
  }
  std::puts("statistics: ok");
  return 0;
}
