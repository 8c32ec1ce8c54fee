// The CUDA kernel's source, run in the emulator, against the scalar kernel: the same bytes for
// every format, size, stride, cut into blocks and mark.
#include "emulator.h"
// The kernel comes behind the emulator, which stands in for the CUDA compiler.
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "contract/mark_file.h"
#include "cuda/embed_kernel.cuh"
#include "embed/kernels.h"
#include "tests/cpp/check.h"

namespace {

using birthmark::Element;
using birthmark::Gains;
using birthmark::kGainRows;
using birthmark::kOrbits;
using birthmark::kTones;
using birthmark::cuda::Job;
using cuda_emulator::Order;
using Bytes = std::vector<unsigned char>;

std::mt19937 random_bits(20240229);  // NOLINT: the same in every run
int Draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }
float DrawFloat(float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random_bits);
}

// --- What is drawn. ------------------------------------------------------------------------------

// Fills a table within the contract's bound for each tone.
enum class Mark { kTypical, kStrong, kOneHighest, kOneLowest, kTwoAtTheBound, kZero, kCount };
void DrawGains(Mark kind, std::int16_t (&gains)[kGainRows][kTones]) {
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
float DrawValue(Content kind, int c, int x, int y, float low, float high) {
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
unsigned short ToHalf(float value) {
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
std::ptrdiff_t SizeOf(Element element) {
  return element == Element::kFloat32                              ? 4
         : element == Element::kUint8 || element == Element::kInt8 ? 1
                                                                   : 2;
}

// Puts the element nearest to a value of the range [0, 1] there.
void Put(unsigned char* place, Element element, float value) {
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
void Run(const Case& c, const Batch& batch, Published& published,
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
void RunPlain(const Case& c, const Batch& batch, Published& published,
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

void Agrees(const Case& c) {
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

// --- What must hold. -----------------------------------------------------------------------------

bool Coin() { return Draw(0, 1) != 0; }

Input DrawInput() {
  constexpr int kChannelCounts[] = {1, 3, 4};
  const Element element = kElements[Draw(0, 4)];
  const bool bytes = SizeOf(element) == 1;
  return {element, kChannelCounts[Draw(0, 2)], Coin(), Coin(), Coin(), bytes && Coin()};
}
Output DrawOutput() {
  const Kind kind = static_cast<Kind>(Draw(0, static_cast<int>(Kind::kCount) - 1));
  const bool can_be_floats = kind == Kind::kPixels || kind == Kind::kPlanes || kind == Kind::kGrey;
  return {kind,       Draw(3, 4),
          Coin(),     can_be_floats && Draw(0, 2) == 0,
          Draw(0, 1), kind == Kind::kP010 ? 1 : Draw(0, 1)};
}

// Half of all cases go through the kernels of the commonest formats.
Case DrawCase(int width, int height) {
  constexpr Input kCommon[] = {kHalfPlanes, kFloatPlanes, kRgb8};
  Case c;
  c.input = Coin() ? kCommon[Draw(0, 2)] : DrawInput();
  c.output = Coin() ? Output() : DrawOutput();
  c.width = width;
  c.height = height;
  c.content = static_cast<Content>(Draw(0, static_cast<int>(Content::kCount) - 1));
  c.mark = static_cast<Mark>(Draw(0, static_cast<int>(Mark::kCount) - 1));
  c.slots = Draw(1, 6);
  c.order = static_cast<Order>(Draw(0, 2));
  return c;
}

void EverySmallSize() {
  for (int height = 1; height <= 9; ++height) {
    for (int width = 1; width <= 9; ++width) Agrees(DrawCase(width, height));
  }
}

void AcrossSeams() {
  using birthmark::cuda::kStripColumns;
  for (int strips = 1; strips <= 2; ++strips) {
    for (int beside = -25; beside <= 25; beside += Draw(1, 12)) {
      Agrees(DrawCase(strips * kStripColumns + beside, Draw(1, 9)));
    }
  }
  for (int slots = 1; slots <= 64; slots *= 2) {
    Case c = DrawCase(Draw(1, 30), 97);
    c.slots = slots;
    Agrees(c);
  }
  Agrees(DrawCase(70, 130));
  Agrees(DrawCase(130, 70));
}

void EveryContentAndMarkInTheCommonestFormats() {
  for (const Input& input : {kHalfPlanes, kFloatPlanes, kRgb8}) {
    for (int content = 0; content < static_cast<int>(Content::kCount); ++content) {
      Case c = DrawCase(Draw(20, 70), Draw(20, 40));
      c.input = input;
      c.content = static_cast<Content>(content);
      Agrees(c);
    }
    for (int mark = 0; mark < static_cast<int>(Mark::kCount); ++mark) {
      Case c = DrawCase(Draw(20, 70), Draw(20, 40));
      c.input = input;
      c.mark = static_cast<Mark>(mark);
      c.content = mark % 2 == 0 ? Content::kChecks : Content::kNoise;
      Agrees(c);
    }
  }
}

// Each input with whatever output, and the other way round.
void EveryInput() {
  for (Element element : kElements) {
    for (int channels : {1, 3, 4}) {
      for (int bits = 0; bits < 16; ++bits) {
        Case c = DrawCase(Draw(1, 60), Draw(1, 12));
        c.input = {element,         channels,        (bits & 1) != 0,
                   (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
        Agrees(c);
      }
    }
  }
}
void EveryOutput() {
  for (int kind = 0; kind < static_cast<int>(Kind::kCount); ++kind) {
    for (int bits = 0; bits < 16; ++bits) {
      const bool high = (bits & 1) != 0, low = (bits & 2) != 0;
      Case c = DrawCase(Draw(1, 60), Draw(1, 12));
      c.output.kind = static_cast<Kind>(kind);
      if (c.output.kind <= Kind::kGrey) {
        c.output = {c.output.kind, high ? 4 : 3, low, (bits & 4) != 0};
      } else {
        c.output = {c.output.kind, 3, false, false, high, low || c.output.kind == Kind::kP010};
      }
      c.layout.pad_out = (bits & 8) != 0 ? 4 : 0;
      Agrees(c);
      c.content = Content::kColours;
      Agrees(c);
    }
  }
}

void EveryLayout() {
  for (int round = 0; round < 60; ++round) {
    Case c = DrawCase(Draw(1, 260), Draw(1, 20));
    c.pictures = Draw(1, 3);
    c.layout = {.pad_columns = Draw(0, 9),
                .offset_elements = Draw(0, 3),
                .upwards = Coin(),
                .mirrored = Draw(0, 3) == 0,
                .pad_out = Draw(0, 5),
                .offset_out = Draw(0, 3)};
    Agrees(c);
  }
}

// Each of the 16-bit floats that are finite, in pictures of a quarter of all bit patterns, through
// both kernels that read them.
void EverySixteenBits(Element element) {
  constexpr int kSide = 128;
  std::int16_t gains[kGainRows][kTones];
  DrawGains(Mark::kStrong, gains);
  for (int start = 0; start < 65536; start += kSide * kSide) {
    Case c;
    c.input = {element, 3, start % (2 * kSide * kSide) != 0};
    c.width = c.height = kSide;
    const Batch batch(c);
    for (int i = 0; i < kSide * kSide; ++i) {
      auto bits = static_cast<unsigned short>(start + i);
      const float value = element == Element::kFloat16
                              ? __half2float({bits})
                              : std::bit_cast<float>(std::uint32_t{bits} << 16);
#if defined(__FLT16_MANT_DIG__) && defined(__x86_64__)  // g++ 12 lacks the type elsewhere
      if (element == Element::kFloat16) {
        const float known = static_cast<float>(std::bit_cast<_Float16>(bits));
        CHECK(std::isnan(known) ? std::isnan(value) : known == value);
      }
#endif
      if (!std::isfinite(value)) bits = 0;
      for (int channel = 0; channel < 3; ++channel) {
        std::memcpy(batch.Place(0, channel, i % kSide, i / kSide), &bits, sizeof(bits));
      }
    }
    Job job = {};
    int not_finite = 0;
    Published found(c), expected(c);
    Run(c, batch, found, gains, job, not_finite);
    CHECK(not_finite == 0);
    RunPlain(c, batch, expected, gains);
    CHECK(found.memory() == expected.memory());
  }
}

void OneValueThatIsNotFiniteIsSeen() {
  constexpr std::uint32_t kFloats[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0x7f800000, 0xff800000};
  constexpr std::uint16_t kHalves[] = {0x7e00, 0xfe00, 0x7c01, 0x7c00, 0xfc00};
  for (int round = 0; round < 90; ++round) {
    Case c = DrawCase(Draw(1, 230), Draw(1, 12));
    c.input.element = kElements[round % 3];
    c.input.quantised = false;
    // An alpha channel counts where it is published.
    if (c.output.channels == 4 && c.output.kind <= Kind::kPlanes) c.input.channels = 4;
    c.pictures = Draw(1, 2);
    const bool alpha_counts = c.output.channels == 4 && c.output.kind <= Kind::kPlanes;
    const int channels = c.input.channels == 4 && !alpha_counts ? 3 : c.input.channels;
    Batch batch(c);
    unsigned char* const place = batch.Place(Draw(0, c.pictures - 1), Draw(0, channels - 1),
                                             round < 4 ? c.width - 1 : Draw(0, c.width - 1),
                                             round < 4 ? c.height - 1 : Draw(0, c.height - 1));
    const std::uint32_t bits = kFloats[round / 3 % 5];
    // A bfloat16 is the upper half of a float32, but for the NaN that is all in the lower.
    const auto upper = static_cast<std::uint16_t>((bits >> 16) | (bits & 1));
    if (c.input.element == Element::kFloat32) {
      std::memcpy(place, &bits, sizeof(bits));
    } else {
      std::memcpy(place, c.input.element == Element::kFloat16 ? &kHalves[round / 3 % 5] : &upper,
                  sizeof(upper));
    }
    std::int16_t gains[kGainRows][kTones];
    DrawGains(c.mark, gains);
    Job job = {};
    int not_finite = 0;
    Published published(c);
    Run(c, batch, published, gains, job, not_finite);
    checks::Check(not_finite == 1, (c.Name() + ": a value that is not finite was missed").c_str(),
                  __LINE__);
  }
}

// What has a kernel of its own goes through it.
void TheCommonestFormatsHaveTheirOwn() {
  using namespace birthmark::cuda;
  const auto name = [](const Input& input, const Output& output, bool four_apart) {
    Case c;
    c.input = input;
    c.output = output;
    c.width = 40;
    c.height = 3;
    c.layout.pad_columns = four_apart ? 0 : 1;
    const Batch batch(c);
    Published published(c);
    Job job = {};
    batch.Fill(job);
    published.Fill(job);
    return WithFormats(job, [&]<class Reader, class Writer>(Formats<Reader, Writer>) {
      Prepare<Reader, Writer>(job);
      return std::to_string(Reader::kAlign * Writer::kPlanes) +
             (job.whole_reads ? " whole" : " singly");
    });
  };
  const Output rgb = {}, nv12 = {Kind::kNv12};
  CHECK(name(kHalfPlanes, rgb, true) == "8 whole" && name(kHalfPlanes, nv12, true) == "0 whole");
  CHECK(name({Element::kBfloat16}, rgb, true) == "8 whole");
  CHECK(name(kFloatPlanes, rgb, true) == "16 whole" &&
        name(kFloatPlanes, rgb, false) == "16 singly");
  CHECK(name(kRgb8, rgb, true) == "4 whole" && name(kRgb8, rgb, false) == "4 singly");
}

// Blocks cover each picture once, whatever the number of them that fit the card.
void BlocksCoverThePicture() {
  for (int round = 0; round < 2000; ++round) {
    Job job = {};
    const int width = job.source.width = round % 5 == 0 ? 1 << 20 : Draw(1, 9000);
    const int height = job.source.height = round % 7 == 0 ? 1 << 20 : Draw(1, 9000);
    const int pictures = Draw(1, 100);
    const std::int64_t blocks = birthmark::cuda::CutIntoBlocks(pictures, Draw(1, 2000), job);
    CHECK(job.stripe_rows >= 2 && job.stripe_rows % 2 == 0);
    CHECK(blocks == std::int64_t{pictures} * job.strips * job.stripes);
    CHECK(std::int64_t{job.strips} * birthmark::cuda::kStripColumns >= width);
    CHECK((job.strips - 1) * std::int64_t{birthmark::cuda::kStripColumns} < width);
    CHECK(std::int64_t{job.stripes} * job.stripe_rows >= height);
    CHECK((job.stripes - 1) * std::int64_t{job.stripe_rows} < height);
  }
}

// --- The emulator itself: what it must catch. ----------------------------------------------------

// Each thread passes its number to the next one, with or without a barrier in between.
unsigned NeighbourSum(Order order, bool waits) {
  unsigned total = 0;
  cuda_emulator::Launch(1, 8, order, [&] {
    __shared__ unsigned passed[8];
    passed[threadIdx.x] = threadIdx.x;
    if (waits) __syncthreads();
    total = 3 * total + passed[(threadIdx.x + 1) % 8];
  });
  return total;
}

// Whether `run` ends a process of its own in another way than by returning.
bool Dies(const std::function<void()>& run) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    run();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void OneThreadLeavesEarly() {
  if (threadIdx.x < 7) __syncthreads();
}
void HalfWaitElsewhere() {
  if (threadIdx.x < 4) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
#if defined(__SANITIZE_ADDRESS__)
void WritesBeyondSharedMemory() {
  __shared__ int small[8];
  volatile unsigned beyond = 8;
  if (++small[beyond] == 0) std::puts("wrapped around");
}
#endif

void EmulatorCatchesWhatItPromises() {
  CHECK(NeighbourSum(Order::kForwards, true) == NeighbourSum(Order::kForwards, true));
  CHECK(NeighbourSum(Order::kForwards, true) != NeighbourSum(Order::kForwards, false));
  CHECK(!Dies([] { NeighbourSum(Order::kBackwards, true); }));
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, OneThreadLeavesEarly); }));
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, HalfWaitElsewhere); }));
#if defined(__SANITIZE_ADDRESS__)
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, WritesBeyondSharedMemory); }));
#endif
}

}  // namespace

int main() {
  EmulatorCatchesWhatItPromises();
  BlocksCoverThePicture();
  EverySmallSize();
  AcrossSeams();
  EveryContentAndMarkInTheCommonestFormats();
  TheCommonestFormatsHaveTheirOwn();
  EveryInput();
  EveryOutput();
  EveryLayout();
  EverySixteenBits(Element::kFloat16);
  EverySixteenBits(Element::kBfloat16);
  OneValueThatIsNotFiniteIsSeen();
  std::puts("cuda_kernel: ok");
  return 0;
}
