// Every kernel makes the same bytes of every format as the plain one does. (That those are right,
// the Python tests say.)
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "embed/embedder.h"
#include "tests/cpp/check.h"

namespace {

using birthmark::Colours;
using birthmark::Element;
using birthmark::Embedder;
using birthmark::Isa;
using birthmark::SizeOf;
using birthmark::Source;
using birthmark::Status;
using birthmark::Target;

using Bytes = std::vector<std::uint8_t>;
constexpr Element kElements[] = {Element::kUint8, Element::kInt8, Element::kFloat16,
                                 Element::kBfloat16, Element::kFloat32};

// Values of any bits that mean finite numbers, mostly between -1 and 1.
Bytes Values(std::size_t count, Element element, std::uint32_t state) {
  const std::size_t size = static_cast<std::size_t>(SizeOf(element));
  Bytes bytes(count * size);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    bytes[i] = static_cast<std::uint8_t>(state >> 24);
    if (i % size != size - 1) continue;
    if (element == Element::kFloat16) bytes[i] &= 0xbb;
    if (element == Element::kBfloat16 || element == Element::kFloat32) bytes[i] &= 0xbf;
  }
  return bytes;
}

// A mark whose echo reaches so far, with a tint if it is the farthest.
birthmark::MarkFile ExampleMark(int reach) {
  birthmark::MarkFile mark;
  for (int row = 0; row < birthmark::kGainRows; ++row) {
    const int farthest =
        row < birthmark::kOrbits ? birthmark::kOrbitTable.at[row].i : birthmark::kRadius;
    if (farthest > reach) continue;
    for (int t = 0; t < birthmark::kTones; ++t) {
      mark.gains[row][t] = static_cast<std::int16_t>((53 * row + 17 * t) % 901 - 450);
    }
  }
  return mark;
}

struct Shape {
  int width, height, channels;
  bool interleaved;
};

Source SourceOf(const Bytes& memory, Element element, const Shape& shape, bool ranged) {
  Source source;
  source.element = element;
  source.width = shape.width;
  source.height = shape.height;
  const std::ptrdiff_t size = SizeOf(element);
  const std::ptrdiff_t column = shape.interleaved ? shape.channels * size : size;
  const std::ptrdiff_t row = column * shape.width;
  const std::ptrdiff_t next = shape.interleaved ? size : row * shape.height;
  for (int c = 0; c < (shape.channels == 4 ? 4 : 3); ++c) {
    source.channel[c] = {memory.data() + (shape.channels == 1 ? 0 : c) * next, row, column};
    if (ranged) {
      source.scale[c] = 0.5f - 0.125f * static_cast<float>(c);
      source.offset[c] = 0.5f;
    }
  }
  if (element == Element::kInt8) {
    source.quantum = 0.01f;
    source.zero_point = -20;
  }
  return source;
}

// All kinds of targets, into one memory that holds any of them.
std::vector<Target> Targets(std::uint8_t* out, int width, int height) {
  const std::ptrdiff_t plane = std::ptrdiff_t{width} * height;
  const std::ptrdiff_t half = (width + 1) / 2, half_plane = half * ((height + 1) / 2);
  std::vector<Target> targets;
  for (int channels : {3, 4}) {
    for (int reversed : {0, 1}) {
      Target target;
      for (int c = 0; c < channels; ++c) {
        const int place = reversed != 0 && c < 3 ? 2 - c : c;
        target.plane[c] = {out + place, std::ptrdiff_t{channels} * width, channels};
      }
      targets.push_back(target);
    }
    Target floats;
    floats.element = Element::kFloat32;
    Target planar;
    for (int c = 0; c < channels; ++c) {
      floats.plane[c] = {out + 4 * c * plane, std::ptrdiff_t{4} * width, 4};
      floats.scale[c] = 1.0f / 8160.0f;
      floats.offset[c] = -1.0f;
      planar.plane[c] = {out + c * plane, width, 1};
    }
    targets.push_back(floats);
    targets.push_back(planar);
  }
  Target grey;
  grey.colours = Colours::kGrey;
  grey.plane[0] = {out, width, 1};
  targets.push_back(grey);
  for (int matrix : {0, 1}) {
    for (int limited : {0, 1}) {
      Target i420;
      i420.colours = Colours::kYuv;
      i420.yuv = birthmark::kYuvWeights[matrix][limited];
      i420.plane[0] = {out, width, 1};
      i420.plane[1] = {out + plane, half, 1};
      i420.plane[2] = {out + plane + half_plane, half, 1};
      targets.push_back(i420);
      Target nv12 = i420;
      nv12.plane[1] = {out + plane, 2 * half, 2};
      nv12.plane[2] = {out + plane + 1, 2 * half, 2};
      targets.push_back(nv12);
      if (limited == 0) continue;
      Target p010 = i420;
      p010.element = Element::kUint10;
      p010.plane[0] = {out, std::ptrdiff_t{2} * width, 2};
      p010.plane[1] = {out + 2 * plane, 4 * half, 4};
      p010.plane[2] = {out + 2 * plane + 2, 4 * half, 4};
      targets.push_back(p010);
    }
  }
  return targets;
}

void KernelsAgree(Embedder& plain, Embedder& other, Element element, const Shape& shape,
                  bool ranged) {
  const std::size_t pixels =
      static_cast<std::size_t>(shape.width) * static_cast<std::size_t>(shape.height);
  const Bytes memory = Values(pixels * static_cast<std::size_t>(shape.channels), element,
                              static_cast<std::uint32_t>(shape.width));
  const Source source = SourceOf(memory, element, shape, ranged);
  Bytes expected(pixels * 16 + 4096), found(expected.size());
  const auto first = Targets(expected.data(), shape.width, shape.height);
  const auto second = Targets(found.data(), shape.width, shape.height);
  for (std::size_t i = 0; i < first.size(); ++i) {
    expected.assign(expected.size(), 0);
    found.assign(found.size(), 0);
    const birthmark::Window window = {0, shape.height, 0, shape.width};
    CHECK(plain.Embed(source, first[i], window) == Status::kOk);
    CHECK(other.Embed(source, second[i], window) == Status::kOk);
    CHECK(expected == found);
  }
}

// Through [0, 1] and as floats, which show all that was loaded.
void EveryHalfIsLoadedAlike(Embedder& plain, Embedder& other) {
  Bytes memory;
  for (int bits = 0; bits < 1 << 16; ++bits) {
    if ((bits & 0x7c00) == 0x7c00) continue;
    memory.push_back(static_cast<std::uint8_t>(bits & 255));
    memory.push_back(static_cast<std::uint8_t>(bits >> 8));
  }
  const int count = static_cast<int>(memory.size() / 2);
  const Source source = SourceOf(memory, Element::kFloat16, {count, 1, 1, false}, false);
  std::vector<float> expected(memory.size() / 2), found(expected.size());
  const auto target = [&](std::vector<float>& out) {
    Target grey;
    grey.colours = Colours::kGrey;
    grey.element = Element::kFloat32;
    grey.plane[0] = {reinterpret_cast<std::uint8_t*>(out.data()), std::ptrdiff_t{4} * count, 4};
    return grey;
  };
  CHECK(plain.Embed(source, target(expected), {0, 1, 0, count}) == Status::kOk);
  CHECK(other.Embed(source, target(found), {0, 1, 0, count}) == Status::kOk);
  CHECK(expected == found);
  CHECK(expected[0x3c00] == 16320.0f && expected[0x3800] == 8160.0f && expected[1] == 0.0f &&
        expected[0x0400] == 1.0f && expected[0x01ff] == 0.0f && expected[0x0203] == 1.0f);
}

// Infinite, and no number, of either sign, in a picture's first, last and some other place.
void HalvesThatAreNotFiniteAreRefused(Embedder& embedder) {
  constexpr Shape kShape = {67, 3, 3, true};
  const std::size_t count = std::size_t{3} * 67 * 3;
  Bytes memory = Values(count, Element::kFloat16, 1), out(count);
  const Source source = SourceOf(memory, Element::kFloat16, kShape, false);
  Target target;
  for (int c = 0; c < 3; ++c) target.plane[c] = {out.data() + c, 3 * 67, 3};
  CHECK(embedder.Embed(source, target, {0, 3, 0, 67}) == Status::kOk);
  for (const std::size_t at : {std::size_t{0}, count / 2, count - 1}) {
    const std::uint8_t before[2] = {memory[2 * at], memory[2 * at + 1]};
    for (const int bits : {0x7c00, 0xfc00, 0x7e00, 0xfdff}) {
      memory[2 * at] = static_cast<std::uint8_t>(bits & 255);
      memory[2 * at + 1] = static_cast<std::uint8_t>(bits >> 8);
      CHECK(embedder.Embed(source, target, {0, 3, 0, 67}) == Status::kNotFinite);
    }
    memory[2 * at] = before[0];
    memory[2 * at + 1] = before[1];
  }
}

// Channels that share a byte of a 32-bit pixel, which then ends before its fourth. The picture ends
// where memory does.
void SharedBytesAreAllThatIsRead(Embedder& embedder) {
  constexpr int kWidth = 67;
  constexpr std::size_t kBytes = 4 * (kWidth - 1) + 3;
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const pages =
      mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  std::uint8_t* const behind = static_cast<std::uint8_t*>(pages) + page;
  CHECK(mprotect(behind, page, PROT_NONE) == 0);
  std::uint8_t* const first = behind - kBytes;
  for (std::size_t i = 0; i < kBytes; ++i) first[i] = static_cast<std::uint8_t>(37 * i);
  Source source;
  source.width = kWidth;
  source.height = 1;
  source.element = Element::kUint8;
  source.quantum = birthmark::kByteQuantum;
  const int places[4] = {2, 0, 0, 1};
  for (int c = 0; c < 4; ++c) source.channel[c] = {first + places[c], 4 * kWidth, 4};
  Bytes out(4 * kWidth);
  Target target;
  for (int c = 0; c < 4; ++c) target.plane[c] = {out.data() + c, 4 * kWidth, 4};
  CHECK(embedder.Embed(source, target, {0, 1, 0, kWidth}) == Status::kOk);
  for (std::size_t x = 0; x < kWidth; ++x) {
    for (std::size_t c = 0; c < 4; ++c) {
      CHECK(out[4 * x + c] == first[4 * x + static_cast<std::size_t>(places[c])]);
    }
  }
  CHECK(munmap(pages, 2 * page) == 0);
}

// Channels that begin at one address and go on elsewhere are not one channel.
void ChannelsWithOneBeginningAreNotOne(Embedder& embedder) {
  constexpr int kSide = 9;
  Bytes memory = Values(kSide * kSide, Element::kUint8, 7), out(3 * kSide * kSide);
  Source source;
  source.width = source.height = kSide;
  source.element = Element::kUint8;
  source.channel[0] = {memory.data(), kSide, 1};
  source.channel[1] = {memory.data(), 1, kSide};  // turned over
  source.channel[2] = {memory.data(), 0, 0};
  Target target;
  for (int c = 0; c < 3; ++c) target.plane[c] = {out.data() + c, 3 * kSide, 3};
  CHECK(embedder.Embed(source, target, {0, kSide, 0, kSide}) == Status::kOk);
  for (std::size_t y = 0; y < kSide; ++y) {
    for (std::size_t x = 0; x < kSide; ++x) {
      const std::uint8_t* const pixel = out.data() + 3 * (kSide * y + x);
      CHECK(pixel[0] == memory[kSide * y + x] && pixel[1] == memory[kSide * x + y] &&
            pixel[2] == memory[0]);
    }
  }
}

// Statistics of a picture that is refused are not half there.
void WhatIsNotFiniteAddsNothing(Embedder& embedder) {
  constexpr int kSide = 40;
  Bytes memory = Values(kSide * kSide, Element::kFloat32, 3);
  const Source source = SourceOf(memory, Element::kFloat32, {kSide, kSide, 1, false}, false);
  std::int64_t sums[birthmark::kAllStatistics] = {};
  CHECK(embedder.AddStatistics(source, sums) == Status::kOk);
  bool any = false;
  for (std::int64_t& sum : sums) {
    any |= sum != 0;
    sum = 5;
  }
  CHECK(any);
  const std::uint8_t nan[4] = {0, 0, 0xc0, 0x7f};
  std::memcpy(memory.data() + memory.size() - 4, nan, 4);
  CHECK(embedder.AddStatistics(source, sums) == Status::kNotFinite);
  for (const std::int64_t sum : sums) CHECK(sum == 5);
}

}  // namespace

int main() {
  constexpr Shape kShapes[] = {{1, 1, 3, false},  {2, 3, 4, true},   {33, 9, 3, false},
                               {67, 11, 4, true}, {45, 6, 1, false}, {1931, 2, 4, false},
                               {40, 13, 3, true}};
  for (Isa isa : birthmark::kAllIsas) {
    if (!birthmark::IsaIsUsable(isa)) continue;
    Embedder plain(std::nullopt, Isa::kScalar), other_plain(std::nullopt, isa);
    EveryHalfIsLoadedAlike(plain, other_plain);
    HalvesThatAreNotFiniteAreRefused(other_plain);
    SharedBytesAreAllThatIsRead(other_plain);
    ChannelsWithOneBeginningAreNotOne(other_plain);
    WhatIsNotFiniteAddsNothing(other_plain);
    for (bool ranged : {false, true}) {
      for (Element element : kElements) {
        for (const Shape& shape : kShapes) {
          KernelsAgree(plain, other_plain, element, shape, ranged);
        }
      }
    }
    for (int reach : {3, 4, birthmark::kRadius}) {
      Embedder marked(ExampleMark(reach), Isa::kScalar), other(ExampleMark(reach), isa);
      for (Element element : kElements) {
        for (const Shape& shape : kShapes) {
          // What several tiles bring is the same for every reach, and takes most of the time.
          if (reach < birthmark::kRadius && shape.width > birthmark::kTileWidth) continue;
          KernelsAgree(marked, other, element, shape, false);
        }
      }
    }
  }
  std::puts("formats: ok");
  return 0;
}
