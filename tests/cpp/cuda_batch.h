// What the CUDA kernel's tests draw: pictures of any format, as a caller may hold them, and the
// bytes that the kernel (in the emulator) and the scalar kernel make of them. Include the emulator
// before.
#ifndef BIRTHMARK_TESTS_CPP_CUDA_BATCH_H_
#define BIRTHMARK_TESTS_CPP_CUDA_BATCH_H_

#include <bit>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "contract/mark_file.h"
#include "cuda/embed_kernel.cuh"
#include "embed/kernels.h"
#include "tests/cpp/check.h"

namespace cuda_batch {

using birthmark::Element;
using birthmark::Gains;
using birthmark::kGainRows;
using birthmark::kOrbits;
using birthmark::kTones;
using birthmark::cuda::Job;
using cuda_emulator::Order;
using Bytes = std::vector<unsigned char>;

inline std::mt19937 random_bits(20240229);  // NOLINT: the same in every run
inline int Draw(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random_bits);
}
inline float DrawFloat(float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random_bits);
}

// --- What is drawn. ------------------------------------------------------------------------------

// Fills a table within the contract's bound for each tone.
enum class Mark { kTypical, kStrong, kOneHighest, kOneLowest, kTwoAtTheBound, kZero, kCount };
inline void DrawGains(Mark kind, std::int16_t (&gains)[kGainRows][kTones]) {
  for (int tone = 0; tone < kTones; ++tone) {
    for (auto& row : gains) row[tone] = 0;
    const int a = Draw(0, kOrbits - 1), b = (a + Draw(1, kOrbits - 1)) % kOrbits;
    if (kind == Mark::kTypical || kind == Mark::kStrong) {
      const int limit = kind == Mark::kTypical ? 150 : 3500;
      for (auto& row : gains) row[tone] = static_cast<std::int16_t>(Draw(-limit, limit));
    } else if (kind == Mark::kOneHighest) {
      gains[a][tone] = 32767;
    } else if (kind == Mark::kOneLowest) {
      gains[a][tone] = -32768;
    } else if (kind == Mark::kTwoAtTheBound) {
      gains[a][tone] = static_cast<std::int16_t>(Draw(0, 1) != 0 ? 32767 : -32767);
      gains[b][tone] = static_cast<std::int16_t>(Draw(0, 1) != 0 ? 27233 : -27233);
    }
    if (kind == Mark::kTwoAtTheBound) {
      constexpr int kMost = birthmark::kTintGainMax;
      for (int row = kOrbits; row < kGainRows; ++row) {
        gains[row][tone] = static_cast<std::int16_t>(kMost * Draw(-1, 1));
      }
    }
  }
  CHECK(birthmark::GainsAreBounded(gains));
}

enum class Content { kNoise, kFaint, kCells, kColours, kChecks, kRamp, kOutside, kSteps, kCount };
inline float DrawValue(Content kind, int c, int x, int y, float low, float high) {
  switch (kind) {
    case Content::kNoise:
      return DrawFloat(0, 1);
    case Content::kFaint:
      return low + DrawFloat(0, 0.02f);
    case Content::kCells:
      return (x / 2 * 7 + y / 4 * 5) % 3 == 0 ? 1.0f : 0.0f;
    case Content::kColours:  // black, the full colours and their mixtures, white
      return (x / 2 + y / 2 * 3) >> c & 1 ? 1.0f : 0.0f;
    case Content::kChecks:
      return (x + y) % 2 == 0 ? low : high;
    case Content::kRamp:
      return static_cast<float>(x * (c + 1) + 2 * y) / 300.0f;
    case Content::kOutside:
      return Draw(0, 4) == 0 ? DrawFloat(-60000, 60000) : DrawFloat(-1, 2);
    default:  // where sixty-fourths of grey levels round, and denormal values
      return Draw(0, 3) == 0 ? 3e-39f : static_cast<float>(Draw(0, 32640)) / 32640.0f;
  }
}

// The nearest float16 to a value in its range, without help from the compiler: by trying.
inline unsigned short ToHalf(float value) {
  const unsigned short sign = std::signbit(value) ? 0x8000 : 0;
  unsigned short low = 0, high = 0x7bff;
  while (high - low > 1) {
    const auto middle = static_cast<unsigned short>((low + high) / 2);
    (__half2float({middle}) <= std::abs(value) ? low : high) = middle;
  }
  return sign | low;
}

constexpr Element kElements[] = {Element::kFloat32, Element::kFloat16, Element::kBfloat16,
                                 Element::kUint8, Element::kInt8};
inline std::ptrdiff_t SizeOf(Element element) {
  return element == Element::kFloat32                              ? 4
         : element == Element::kUint8 || element == Element::kInt8 ? 1
                                                                   : 2;
}

// Puts the element nearest to a value of the range [0, 1] there.
inline void Put(unsigned char* place, Element element, float value) {
  if (element == Element::kFloat32) {
    std::memcpy(place, &value, sizeof(value));
  } else if (element == Element::kFloat16) {
    const unsigned short half = ToHalf(std::clamp(value, -65504.0f, 65504.0f));
    std::memcpy(place, &half, sizeof(half));
  } else if (element == Element::kBfloat16) {
    const auto bits = static_cast<unsigned short>(std::bit_cast<std::uint32_t>(value) >> 16);
    std::memcpy(place, &bits, sizeof(bits));
  } else {
    const int level = static_cast<int>(std::clamp(value, 0.0f, 1.0f) * 255.0f);
    *place = static_cast<unsigned char>(element == Element::kInt8 ? level - 128 : level);
  }
}

// How values lie in memory and what they mean.
struct Input {
  Element element = Element::kFloat16;
  int channels = 3;
  bool interleaved = false, reversed = false;  // blue, green, red
  bool ranged = false;                         // with a scale and an offset
  bool quantised = false;                      // bytes: another quantum, a zero point
};
constexpr Input kHalfPlanes = {};
constexpr Input kFloatPlanes = {Element::kFloat32};
constexpr Input kRgb8 = {Element::kUint8, 3, true};

// What is published.
enum class Kind { kPixels, kPlanes, kGrey, kNv12, kI420, kP010, kCount };
struct Output {
  Kind kind = Kind::kPixels;
  int channels = 3;  // of pixels and planes
  bool reversed = false;
  bool floats = false;  // of pixels, planes and grey
  int matrix = 0, limited = 1;
};

// Pictures in memory as a caller may hold them: rows far apart, upwards, at odd addresses.
struct Layout {
  int pad_columns = 0;      // behind each row
  int offset_elements = 0;  // in front of everything
  bool upwards = false, mirrored = false;
  int pad_out = 0;
  int offset_out = 0;
};

struct Case {
  Input input = {};
  Output output = {};
  int width = 1, height = 1, pictures = 1;
  Content content = Content::kNoise;
  Mark mark = Mark::kTypical;
  Layout layout = {};
  int slots = 1;
  Order order = Order::kForwards;

  std::string Name() const {
    const auto number = [](auto value) { return std::to_string(static_cast<int>(value)); };
    return "element " + number(input.element) + " x " + number(input.channels) + ", interleaved " +
           number(input.interleaved) + ", reversed " + number(input.reversed) + ", ranged " +
           number(input.ranged) + ", quantised " + number(input.quantised) + ", output " +
           number(output.kind) + " x " + number(output.channels) + ", reversed " +
           number(output.reversed) + ", floats " + number(output.floats) + ", " + number(width) +
           "x" + number(height) + ", " + number(pictures) + " pictures, content " +
           number(content) + ", mark " + number(mark) + ", slots " + number(slots) + ", order " +
           number(order);
  }
};

// A batch in memory.
class Batch {
 public:
  explicit Batch(const Case& c) : case_(c) {
    const Input& input = c.input;
    const std::ptrdiff_t size = SizeOf(input.element);
    column_ = size * (input.interleaved ? input.channels : 1);
    row_ = column_ * c.width + size * c.layout.pad_columns;
    plane_ = input.interleaved ? size : row_ * c.height;
    picture_ = row_ * c.height * (input.interleaved ? 1 : input.channels);
    const std::ptrdiff_t offset = size * c.layout.offset_elements;
    // What no picture holds is NaN, or some byte.
    memory_.assign(static_cast<std::size_t>(offset + picture_ * c.pictures), 0xff);
    first_ = memory_.data() + offset;
    for (int i = 0; i < c.pictures; ++i) {
      const float a = DrawFloat(0, 1), b = DrawFloat(0, 1);
      for (int y = 0; y < c.height; ++y) {
        for (int x = 0; x < c.width; ++x) {
          for (int channel = 0; channel < input.channels; ++channel) {
            Put(Place(i, channel, x, y), input.element, DrawValue(c.content, channel, x, y, a, b));
          }
        }
      }
    }
  }

  // Where a value is; channels as they lie in memory.
  unsigned char* Place(int picture, int channel, int x, int y) const {
    const int row = case_.layout.upwards ? case_.height - 1 - y : y;
    const int column = case_.layout.mirrored ? case_.width - 1 - x : x;
    return first_ + picture * picture_ + row * row_ + column * column_ + channel * plane_;
  }

  void Fill(Job& job) const {
    const Input& input = case_.input;
    birthmark::Source& source = job.source;
    source = {};
    source.width = case_.width;
    source.height = case_.height;
    source.element = input.element;
    for (int c = 0; c < (input.channels == 4 ? 4 : 3); ++c) {
      const int place = input.channels == 1 ? 0 : input.reversed && c < 3 ? 2 - c : c;
      source.channel[c] = {Place(0, place, 0, 0), case_.layout.upwards ? -row_ : row_,
                           case_.layout.mirrored ? -column_ : column_};
      if (input.ranged) {
        source.scale[c] = 0.75f - 0.125f * static_cast<float>(c);
        source.offset[c] = 0.1f;
      }
    }
    if (input.element == Element::kInt8) source.zero_point = -128;
    if (input.quantised) {
      source.quantum = 0.0061f;
      source.zero_point += 17;
    }
    job.picture_stride = picture_;
  }

 private:
  Case case_;
  std::ptrdiff_t column_, row_, plane_, picture_;
  Bytes memory_;
  unsigned char* first_;
};

constexpr unsigned char kUntouched = 77;

// Memory for what is published, all planes of a picture one behind the other.
class Published {
 public:
  explicit Published(const Case& c) : case_(c) {
    Job job = {};
    memory_.assign(static_cast<std::size_t>(LayOut(job)), kUntouched);
  }
  void Fill(Job& job) { LayOut(job); }
  const Bytes& memory() const { return memory_; }

 private:
  // Returns the bytes that all of it takes.
  std::ptrdiff_t LayOut(Job& job) {
    const Output& output = case_.output;
    birthmark::Target& target = job.target;
    target = {};
    const std::ptrdiff_t size = output.floats ? 4 : output.kind == Kind::kP010 ? 2 : 1;
    if (output.floats) target.element = Element::kFloat32;
    if (output.kind == Kind::kP010) target.element = Element::kUint10;
    for (int c = 0; c < 4 && output.floats; ++c) {
      target.scale[c] = 1.0f / (8160.0f + 100.0f * static_cast<float>(c));
      target.offset[c] = -0.9f;
    }
    target.yuv = birthmark::kYuvWeights[output.matrix][output.limited];
    std::ptrdiff_t at = size * case_.layout.offset_out;
    // A plane of cells of some values; returns where it begins.
    const auto plane = [&](int index, int width, int height, int values) {
      const std::ptrdiff_t row = size * (values * width + case_.layout.pad_out);
      for (int v = 0; v < values; ++v) {
        const int place = output.reversed && values > 2 && v < 3 ? 2 - v : v;
        target.plane[index + v] = {memory_.data() + at + place * size, row, values * size};
      }
      at += row * height;
    };
    const int width = case_.width, height = case_.height;
    const int half_width = (width + 1) / 2, half_height = (height + 1) / 2;
    switch (output.kind) {
      case Kind::kPlanes:
        for (int c = 0; c < output.channels; ++c) plane(c, width, height, 1);
        break;
      case Kind::kGrey:
        target.colours = birthmark::Colours::kGrey;
        plane(0, width, height, 1);
        break;
      case Kind::kNv12:
      case Kind::kP010:
        target.colours = birthmark::Colours::kYuv;
        plane(0, width, height, 1);
        plane(1, half_width, half_height, 2);
        break;
      case Kind::kI420:
        target.colours = birthmark::Colours::kYuv;
        plane(0, width, height, 1);
        plane(1, half_width, half_height, 1);
        plane(2, half_width, half_height, 1);
        break;
      default:
        plane(0, width, height, output.channels);
    }
    for (std::ptrdiff_t& stride : job.out_picture_stride) stride = at;
    return at * case_.pictures;
  }

  Case case_;
  Bytes memory_;
};

// Runs the kernel on a batch, into memory.
inline void Run(const Case& c, const Batch& batch, Published& published,
                const std::int16_t (&gains)[kGainRows][kTones], Job& job, int& not_finite) {
  using namespace birthmark::cuda;
  batch.Fill(job);
  published.Fill(job);
  job.not_finite = &not_finite;
  SetGains(gains, job);
  const std::int64_t blocks = CutIntoBlocks(c.pictures, c.slots, job);
  WithFormats(job, [&]<class Reader, class Writer>(Formats<Reader, Writer>) {
    Prepare<Reader, Writer>(job);
    cuda_emulator::Launch(static_cast<unsigned>(blocks), kThreads, c.order,
                          [&] { EmbedKernel<Reader, Writer>(job); });
  });
}

// What the scalar kernel makes of the same batch, into other memory.
inline void RunPlain(const Case& c, const Batch& batch, Published& published,
                     const std::int16_t (&gains)[kGainRows][kTones]) {
  static const auto work = std::make_unique<birthmark::Workspace>();
  Job job = {};
  batch.Fill(job);
  published.Fill(job);
  for (int i = 0; i < c.pictures; ++i) {
    birthmark::EmbedJob one = {job.source, job.target, {0, c.height, 0, c.width}, &gains};
    for (int p = 0; p < birthmark::kChannels; ++p) {
      auto& from = one.source.channel[p];
      auto& to = one.target.plane[p];
      if (from.data != nullptr) from.data += i * job.picture_stride;
      if (to.data != nullptr) to.data += i * job.out_picture_stride[p];
    }
    CHECK(birthmark::KernelFor(birthmark::Isa::kScalar)->embed(one, *work));
  }
}

inline void Agrees(const Case& c) {
  std::int16_t gains[kGainRows][kTones];
  DrawGains(c.mark, gains);
  const Batch batch(c);
  Published found(c), expected(c);
  Job job = {};
  int not_finite = 0;
  Run(c, batch, found, gains, job, not_finite);
  checks::Check(not_finite == 0, (c.Name() + ": finite values were taken for others").c_str(),
                __LINE__);
  RunPlain(c, batch, expected, gains);
  for (std::size_t i = 0; i < found.memory().size(); ++i) {
    if (found.memory()[i] == expected.memory()[i]) continue;
    const std::string what = c.Name() + ": byte " + std::to_string(i) + " is " +
                             std::to_string(found.memory()[i]) + ", not " +
                             std::to_string(expected.memory()[i]);
    checks::Check(false, what.c_str(), __LINE__);
  }
}

}  // namespace cuda_batch

#endif  // BIRTHMARK_TESTS_CPP_CUDA_BATCH_H_
