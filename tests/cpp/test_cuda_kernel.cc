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

using birthmark::Gains;
using birthmark::kGainRows;
using birthmark::kOrbits;
using birthmark::kTones;
using birthmark::cuda::Format;
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

enum class Content { kNoise, kFaint, kCells, kChecks, kRamp, kOutside, kSteps, kCount };
float DrawValue(Content kind, int c, int x, int y, float low, float high) {
  switch (kind) {
    case Content::kNoise:
      return DrawFloat(0, 1);
    case Content::kFaint:
      return low + DrawFloat(0, 0.02f);
    case Content::kCells:
      return (x / 2 * 7 + y / 4 * 5) % 3 == 0 ? 1.0f : 0.0f;
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

// Pictures in memory as a caller may hold them: rows far apart, upwards, at odd addresses.
struct Layout {
  int pad_columns = 0;      // behind each row
  int offset_elements = 0;  // in front of everything
  bool upwards = false;
  int pad_out_bytes = 0;
  int offset_out_bytes = 0;
};

struct Case {
  Format format = Format::kPlanarHalf;
  int width = 1, height = 1, pictures = 1;
  Content content = Content::kNoise;
  Mark mark = Mark::kTypical;
  Layout layout = {};
  int slots = 1;
  Order order = Order::kForwards;

  std::string Name() const {
    return "format " + std::to_string(static_cast<int>(format)) + ", " + std::to_string(width) +
           "x" + std::to_string(height) + ", " + std::to_string(pictures) + " pictures, content " +
           std::to_string(static_cast<int>(content)) + ", mark " +
           std::to_string(static_cast<int>(mark)) + ", slots " + std::to_string(slots) +
           ", order " + std::to_string(static_cast<int>(order));
  }
};

void Launch(Format format, const Job& job, std::int64_t blocks, Order order) {
  using namespace birthmark::cuda;
  const auto run = [&](auto kernel) {
    cuda_emulator::Launch(static_cast<unsigned>(blocks), kThreads, order, [&] { kernel(job); });
  };
  switch (format) {
    case Format::kPlanarFloat:
      return run(EmbedKernel<PlanarFloat, Rgb8>);
    case Format::kPlanarHalf:
      return run(EmbedKernel<PlanarHalf, Rgb8>);
    case Format::kRgb8:
      return run(EmbedKernel<Rgb8, Rgb8>);
  }
}

// Three planes of floats, one behind the other.
birthmark::Source FloatSource(const float* planes, int width, int height) {
  constexpr std::ptrdiff_t kFloat = sizeof(float);
  birthmark::Source source;
  source.width = width;
  source.height = height;
  for (std::ptrdiff_t channel = 0; channel < 3; ++channel) {
    source.channel[channel] = {
        reinterpret_cast<const std::uint8_t*>(planes + channel * width * height), width * kFloat,
        kFloat};
  }
  return source;
}

birthmark::Target RgbTarget(std::uint8_t* pixels, std::ptrdiff_t row_stride) {
  birthmark::Target target;
  for (int channel = 0; channel < 3; ++channel) {
    target.plane[channel] = {pixels + channel, row_stride, 3};
  }
  return target;
}

// A batch in memory, and what it holds as the scalar kernel reads it.
class Batch {
 public:
  explicit Batch(const Case& c) : case_(c) {
    const bool planar = c.format != Format::kRgb8;
    element_ = c.format == Format::kPlanarFloat ? 4 : c.format == Format::kPlanarHalf ? 2 : 1;
    row_ = element_ * ((planar ? 1 : 3) * c.width + c.layout.pad_columns);
    plane_ = row_ * c.height;
    picture_ = plane_ * (planar ? 3 : 1);
    offset_ = element_ * c.layout.offset_elements;
    // What no picture holds is NaN, or some byte.
    memory_.assign(static_cast<std::size_t>(offset_ + picture_ * c.pictures), 0xff);
    const std::size_t values = std::size_t{3} * static_cast<std::size_t>(c.width * c.height);
    floats_.resize(values * static_cast<std::size_t>(c.pictures));
    bytes_.resize(floats_.size());
    for (int i = 0; i < c.pictures; ++i) {
      const float a = DrawFloat(0, 1), b = DrawFloat(0, 1);
      for (int y = 0; y < c.height; ++y) {
        for (int x = 0; x < c.width; ++x) {
          for (int channel = 0; channel < 3; ++channel) {
            Put(i, channel, x, y, DrawValue(c.content, channel, x, y, a, b));
          }
        }
      }
    }
  }

  // Puts the bits of a value; used for values that are not finite.
  unsigned char* Place(int picture, int channel, int x, int y) {
    const int row = case_.layout.upwards ? case_.height - 1 - y : y;
    const bool planar = case_.format != Format::kRgb8;
    return memory_.data() + offset_ + picture * picture_ + row * row_ +
           (planar ? channel * plane_ + element_ * x : 3 * x + channel);
  }

  void Fill(Job& job) {
    for (int channel = 0; channel < 3; ++channel) job.planes[channel] = Place(0, channel, 0, 0);
    job.row_stride = case_.layout.upwards ? -row_ : row_;
    job.picture_stride = picture_;
  }

  birthmark::Source Source(int picture) const {
    const std::size_t plane = static_cast<std::size_t>(case_.width * case_.height);
    const std::size_t at = 3 * plane * static_cast<std::size_t>(picture);
    if (case_.format != Format::kRgb8) {
      return FloatSource(floats_.data() + at, case_.width, case_.height);
    }
    birthmark::Source source;
    source.element = birthmark::Element::kUint8;
    source.width = case_.width;
    source.height = case_.height;
    for (int channel = 0; channel < 3; ++channel) {
      source.channel[channel] = {bytes_.data() + at + channel, std::ptrdiff_t{3} * case_.width, 3};
    }
    return source;
  }

 private:
  void Put(int picture, int channel, int x, int y, float value) {
    unsigned char* const place = Place(picture, channel, x, y);
    const int pixel = y * case_.width + x, pixels = case_.width * case_.height;
    const std::size_t base = 3 * static_cast<std::size_t>(picture * pixels);
    if (case_.format == Format::kRgb8) {
      const float level = std::clamp(value, 0.0f, 1.0f) * 255.0f;
      *place = bytes_[base + static_cast<std::size_t>(3 * pixel + channel)] =
          static_cast<std::uint8_t>(level);
      return;
    }
    float& kept = floats_[base + static_cast<std::size_t>(channel * pixels + pixel)];
    kept = value;
    if (case_.format == Format::kPlanarHalf) {
      const unsigned short half = ToHalf(value);
      kept = __half2float({half});
      std::memcpy(place, &half, sizeof(half));
    } else {
      std::memcpy(place, &value, sizeof(value));
    }
  }

  Case case_;
  std::ptrdiff_t element_, row_, plane_, picture_, offset_;
  Bytes memory_;
  std::vector<float> floats_;
  Bytes bytes_;
};

constexpr unsigned char kUntouched = 77;

// Runs the kernel on a batch. Returns the whole memory that it was given for its pictures.
Bytes Run(const Case& c, Batch& batch, const std::int16_t (&gains)[kGainRows][kTones], Job& job,
          int& not_finite) {
  const std::ptrdiff_t out_row = 3 * c.width + c.layout.pad_out_bytes;
  Bytes out(static_cast<std::size_t>(c.layout.offset_out_bytes + out_row * c.height * c.pictures),
            kUntouched);
  batch.Fill(job);
  job.out = out.data() + c.layout.offset_out_bytes;
  job.out_row_stride = out_row;
  job.out_picture_stride = out_row * c.height;
  job.width = c.width;
  job.height = c.height;
  job.not_finite = &not_finite;
  birthmark::cuda::SetGains(gains, job);
  const std::int64_t blocks = birthmark::cuda::CutIntoBlocks(c.format, c.pictures, c.slots, job);
  Launch(c.format, job, blocks, c.order);
  return out;
}

void Agrees(const Case& c) {
  static const auto work = std::make_unique<birthmark::Workspace>();
  std::int16_t gains[kGainRows][kTones];
  DrawGains(c.mark, gains);
  Batch batch(c);
  Job job = {};
  int not_finite = 0;
  const Bytes found = Run(c, batch, gains, job, not_finite);
  checks::Check(not_finite == 0, (c.Name() + ": finite values were taken for others").c_str(),
                __LINE__);
  Bytes expected(found.size(), kUntouched);
  for (int i = 0; i < c.pictures; ++i) {
    const birthmark::EmbedJob one = {
        batch.Source(i),
        RgbTarget(expected.data() + c.layout.offset_out_bytes + i * job.out_picture_stride,
                  job.out_row_stride),
        {0, c.height, 0, c.width},
        &gains};
    CHECK(birthmark::KernelFor(birthmark::Isa::kScalar)->embed(one, *work));
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i] == expected[i]) continue;
    const std::string what = c.Name() + ": byte " + std::to_string(i) + " is " +
                             std::to_string(found[i]) + ", not " + std::to_string(expected[i]);
    checks::Check(false, what.c_str(), __LINE__);
  }
}

constexpr Format kFormats[] = {Format::kPlanarFloat, Format::kPlanarHalf, Format::kRgb8};

// --- What must hold. -----------------------------------------------------------------------------

Case DrawCase(int width, int height) {
  Case c;
  c.format = kFormats[Draw(0, 2)];
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

void EveryContentAndMarkInEveryFormat() {
  for (Format format : kFormats) {
    for (int content = 0; content < static_cast<int>(Content::kCount); ++content) {
      Case c = DrawCase(Draw(20, 70), Draw(20, 40));
      c.format = format;
      c.content = static_cast<Content>(content);
      Agrees(c);
    }
    for (int mark = 0; mark < static_cast<int>(Mark::kCount); ++mark) {
      Case c = DrawCase(Draw(20, 70), Draw(20, 40));
      c.format = format;
      c.mark = static_cast<Mark>(mark);
      c.content = mark % 2 == 0 ? Content::kChecks : Content::kNoise;
      Agrees(c);
    }
  }
}

void EveryLayout() {
  for (Format format : kFormats) {
    for (int round = 0; round < 12; ++round) {
      Case c = DrawCase(Draw(1, 260), Draw(1, 20));
      c.format = format;
      c.pictures = Draw(1, 3);
      c.layout = {.pad_columns = Draw(0, 9),
                  .offset_elements = Draw(0, 3),
                  .upwards = Draw(0, 1) != 0,
                  .pad_out_bytes = Draw(0, 5),
                  .offset_out_bytes = Draw(0, 3)};
      Agrees(c);
    }
  }
}

// Each of the float16 values that are finite, in pictures of a quarter of all bit patterns.
void EveryHalf() {
  constexpr int kSide = 128;
  std::int16_t gains[kGainRows][kTones];
  DrawGains(Mark::kStrong, gains);
  for (int start = 0; start < 65536; start += kSide * kSide) {
    Case c;
    c.width = c.height = kSide;
    Batch batch(c);
    std::vector<float> values(std::size_t{kSide} * kSide);
    for (int i = 0; i < kSide * kSide; ++i) {
      auto bits = static_cast<unsigned short>(start + i);
      float& value = values[static_cast<std::size_t>(i)];
      value = __half2float({bits});
#if defined(__FLT16_MANT_DIG__) && defined(__x86_64__)  // g++ 12 lacks the type elsewhere
      const float known = static_cast<float>(std::bit_cast<_Float16>(bits));
      CHECK(std::isnan(known) ? std::isnan(value) : known == value);
#endif
      if (!std::isfinite(value)) value = bits = 0;
      for (int channel = 0; channel < 3; ++channel) {
        std::memcpy(batch.Place(0, channel, i % kSide, i / kSide), &bits, sizeof(bits));
      }
    }
    Job job = {};
    int not_finite = 0;
    const Bytes found = Run(c, batch, gains, job, not_finite);
    CHECK(not_finite == 0);
    const auto work = std::make_unique<birthmark::Workspace>();
    Bytes expected(found.size());
    birthmark::Source source = FloatSource(values.data(), kSide, kSide);
    source.channel[1] = source.channel[2] = source.channel[0];
    const birthmark::EmbedJob one = {
        source, RgbTarget(expected.data(), 3 * kSide), {0, kSide, 0, kSide}, &gains};
    CHECK(birthmark::KernelFor(birthmark::Isa::kScalar)->embed(one, *work));
    CHECK(found == expected);
  }
}

void OneValueThatIsNotFiniteIsSeen() {
  constexpr std::uint32_t kFloats[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0x7f800000, 0xff800000};
  constexpr std::uint16_t kHalves[] = {0x7e00, 0xfe00, 0x7c01, 0x7c00, 0xfc00};
  for (int round = 0; round < 60; ++round) {
    Case c = DrawCase(Draw(1, 230), Draw(1, 12));
    c.format = round % 2 == 0 ? Format::kPlanarFloat : Format::kPlanarHalf;
    c.pictures = Draw(1, 2);
    Batch batch(c);
    unsigned char* const place = batch.Place(Draw(0, c.pictures - 1), Draw(0, 2),
                                             round < 4 ? c.width - 1 : Draw(0, c.width - 1),
                                             round < 4 ? c.height - 1 : Draw(0, c.height - 1));
    if (c.format == Format::kPlanarFloat) {
      std::memcpy(place, &kFloats[round / 2 % 5], sizeof(kFloats[0]));
    } else {
      std::memcpy(place, &kHalves[round / 2 % 5], sizeof(kHalves[0]));
    }
    std::int16_t gains[kGainRows][kTones];
    DrawGains(c.mark, gains);
    Job job = {};
    int not_finite = 0;
    Run(c, batch, gains, job, not_finite);
    checks::Check(not_finite == 1, (c.Name() + ": a value that is not finite was missed").c_str(),
                  __LINE__);
  }
}

// Blocks cover each picture once, whatever the number of them that fit the card.
void BlocksCoverThePicture() {
  for (int round = 0; round < 2000; ++round) {
    Job job = {};
    job.width = round % 5 == 0 ? 1 << 20 : Draw(1, 9000);
    job.height = round % 7 == 0 ? 1 << 20 : Draw(1, 9000);
    const int pictures = Draw(1, 100);
    const std::int64_t blocks =
        birthmark::cuda::CutIntoBlocks(kFormats[Draw(0, 2)], pictures, Draw(1, 2000), job);
    CHECK(job.stripe_rows >= 1);
    CHECK(blocks == std::int64_t{pictures} * job.strips * job.stripes);
    CHECK(std::int64_t{job.strips} * birthmark::cuda::kStripColumns >= job.width);
    CHECK((job.strips - 1) * std::int64_t{birthmark::cuda::kStripColumns} < job.width);
    CHECK(std::int64_t{job.stripes} * job.stripe_rows >= job.height);
    CHECK((job.stripes - 1) * std::int64_t{job.stripe_rows} < job.height);
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
  EveryContentAndMarkInEveryFormat();
  EveryLayout();
  EveryHalf();
  OneValueThatIsNotFiniteIsSeen();
  std::puts("cuda_kernel: ok");
  return 0;
}
