// The CUDA kernel's source, run in the emulator, against the scalar kernel: the same bytes for
// every format, size, stride, cut into blocks and mark.
#include "emulator.h"
// The kernel comes behind the emulator, which stands in for the CUDA compiler.
#include <cstdio>
#include <string>
#include <vector>

#include "tests/cpp/cuda_batch.h"

namespace cuda_batch {
namespace {

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

}  // namespace
}  // namespace cuda_batch

int main() {
  using namespace cuda_batch;
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
