// On a machine with a card: compares the CUDA kernel's bytes with the processor's, then times it
// against a plain copy. bench/cuda.sh builds and runs it.
//   bench_cuda            all of it
//   bench_cuda compare    small pictures only, for compute-sanitizer
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "contract/mark_file.h"
#include "cuda/launch.h"
#include "embed/dispatch.h"
#include "embed/kernels.h"

namespace {

using birthmark::Element;
using birthmark::cuda::Failure;
using birthmark::cuda::Job;

constexpr std::uintptr_t kStream = 1;  // the legacy default stream
constexpr int kRepeats = 30;

void Stop(const char* what) {
  std::fprintf(stderr, "error: %s\n", what);
  std::exit(1);
}
void Check(cudaError_t error) {
  if (error != cudaSuccess) Stop(cudaGetErrorString(error));
}
void Check(Failure failure) {
  if (failure != nullptr) Stop(failure);
}

class CardMemory {
 public:
  explicit CardMemory(std::size_t bytes) : bytes_(bytes) { Check(cudaMalloc(&at_, bytes)); }
  ~CardMemory() { cudaFree(at_); }
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;
  unsigned char* at() const { return static_cast<unsigned char*>(at_); }
  void Put(const void* from) { Check(cudaMemcpy(at_, from, bytes_, cudaMemcpyHostToDevice)); }
  void Get(void* to) const { Check(cudaMemcpy(to, at_, bytes_, cudaMemcpyDeviceToHost)); }

 private:
  void* at_ = nullptr;
  std::size_t bytes_;
};

struct Medians {
  float low, middle, high;  // milliseconds: the middle half and the median
};
template <class Run>
Medians Time(Run&& run) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) run();
  std::vector<float> times(kRepeats);
  for (float& time : times) {
    Check(cudaEventRecord(begin, cudaStreamLegacy));
    run();
    Check(cudaEventRecord(end, cudaStreamLegacy));
    Check(cudaEventSynchronize(end));
    Check(cudaEventElapsedTime(&time, begin, end));
  }
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return {times[kRepeats / 4], times[kRepeats / 2], times[3 * kRepeats / 4]};
}

// How a batch lies in memory.
struct Input {
  const char* name;
  Element element;
  int channels;
  bool interleaved;
};
constexpr Input kInputs[] = {
    {"float16 NCHW", Element::kFloat16, 3, false}, {"bfloat16 NCHW", Element::kBfloat16, 3, false},
    {"float32 NCHW", Element::kFloat32, 3, false}, {"uint8 RGB", Element::kUint8, 3, true},
    {"float16 NHWC", Element::kFloat16, 3, true},  {"float32 RGBA", Element::kFloat32, 4, true},
    {"uint8 RGBA", Element::kUint8, 4, true},      {"int8 NCHW", Element::kInt8, 3, false},
    {"float16 grey", Element::kFloat16, 1, false}};
int SizeOf(Element element) {
  return element == Element::kFloat32                              ? 4
         : element == Element::kUint8 || element == Element::kInt8 ? 1
                                                                   : 2;
}

// What is published.
enum class Kind { kRgb, kBgra, kPlanes, kGrey, kNv12, kI420, kP010 };
struct Output {
  const char* name;
  Kind kind;
  Element element = Element::kUint8;
};
constexpr Output kOutputs[] = {
    {"RGB8", Kind::kRgb},      {"BGRA8", Kind::kBgra},
    {"planes", Kind::kPlanes}, {"float32 planes", Kind::kPlanes, Element::kFloat32},
    {"grey", Kind::kGrey},     {"NV12", Kind::kNv12},
    {"I420", Kind::kI420},     {"P010", Kind::kP010, Element::kUint10}};

// The bits of level / 256 as a float of an element, exact; of a byte the level itself.
std::uint32_t BitsOf(Element element, int level) {
  const float value = static_cast<float>(level) / 256.0f;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (element == Element::kFloat32) return bits;
  if (element == Element::kBfloat16) return bits >> 16;
  if (element != Element::kFloat16) return static_cast<std::uint32_t>(level);
  return level == 0 ? 0 : (bits >> 13) - (112U << 10);
}

// A batch of noise on a slope, on the host and on the card.
class Batch {
 public:
  Batch(const Input& input, int width, int height, int pictures, int pad, std::mt19937& random)
      : input_(input), width_(width), height_(height) {
    const std::ptrdiff_t size = SizeOf(input.element);
    column_ = size * (input.interleaved ? input.channels : 1);
    row_ = column_ * width + size * pad;
    plane_ = input.interleaved ? size : row_ * height;
    picture_ = row_ * height * (input.interleaved ? 1 : input.channels);
    memory_.assign(static_cast<std::size_t>(picture_ * pictures), 0xff);
    for (int i = 0; i < pictures; ++i) {
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          for (int c = 0; c < input.channels; ++c) {
            const int level = (x / 8 + y / 5 + 60 * c + static_cast<int>(random() % 40)) % 256;
            const std::uint32_t bits = BitsOf(input.element, level);
            std::memcpy(memory_.data() + i * picture_ + y * row_ + x * column_ + c * plane_, &bits,
                        static_cast<std::size_t>(size));
          }
        }
      }
    }
    card_ = std::make_unique<CardMemory>(memory_.size());
    card_->Put(memory_.data());
  }

  // The picture's source, on the card or on the host.
  birthmark::Source Source(bool on_card, int picture = 0) const {
    birthmark::Source source;
    source.element = input_.element;
    source.width = width_;
    source.height = height_;
    if (input_.element == Element::kInt8) source.zero_point = -128;
    const std::uint8_t* const base = (on_card ? card_->at() : memory_.data()) + picture * picture_;
    for (int c = 0; c < (input_.channels == 4 ? 4 : 3); ++c) {
      source.channel[c] = {base + (input_.channels == 1 ? 0 : c) * plane_, row_, column_};
    }
    return source;
  }
  std::ptrdiff_t picture_stride() const { return picture_; }

 private:
  Input input_;
  int width_, height_;
  std::ptrdiff_t column_, row_, plane_, picture_;
  std::vector<std::uint8_t> memory_;
  std::unique_ptr<CardMemory> card_;
};

// Lays the planes of a picture one behind the other; returns the bytes that they take.
std::ptrdiff_t LayOut(const Output& output, int width, int height, int pad, std::uint8_t* memory,
                      birthmark::Target& target) {
  target = {};
  target.element = output.element;
  const std::ptrdiff_t size = output.element == Element::kUint10 ? 2 : SizeOf(output.element);
  for (float& scale : target.scale) scale = 1.0f / 16320.0f;
  target.yuv = birthmark::kYuvWeights[0][1];
  std::ptrdiff_t at = 0;
  const auto plane = [&](int index, int columns, int rows, int values) {
    const std::ptrdiff_t row = size * (values * columns + pad);
    for (int v = 0; v < values; ++v) {
      const int place = values == 4 && v < 3 ? 2 - v : v;
      target.plane[index + v] = {memory + at + place * size, row, values * size};
    }
    at += row * rows;
  };
  const int half_width = (width + 1) / 2, half_height = (height + 1) / 2;
  const bool halved =
      output.kind == Kind::kNv12 || output.kind == Kind::kP010 || output.kind == Kind::kI420;
  target.colours = halved                       ? birthmark::Colours::kYuv
                   : output.kind == Kind::kGrey ? birthmark::Colours::kGrey
                                                : birthmark::Colours::kRgb;
  if (output.kind == Kind::kRgb || output.kind == Kind::kBgra) {
    plane(0, width, height, output.kind == Kind::kRgb ? 3 : 4);
    return at;
  }
  plane(0, width, height, 1);
  if (output.kind == Kind::kPlanes) {
    plane(1, width, height, 1);
    plane(2, width, height, 1);
  } else if (output.kind == Kind::kI420) {
    plane(1, half_width, half_height, 1);
    plane(2, half_width, half_height, 1);
  } else if (halved) {
    plane(1, half_width, half_height, 2);
  }
  return at;
}

class Bench {
 public:
  Bench() {
    for (auto& orbit : mark_.gains) {
      for (std::int16_t& gain : orbit)
        gain = static_cast<std::int16_t>(static_cast<int>(random_() % 601) - 300);
    }
    Check(birthmark::cuda::AllocateFlag(not_finite_));
  }
  ~Bench() { birthmark::cuda::FreeFlag(not_finite_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void Compare(bool small) {
    struct Size {
      int width, height, pictures;
    };
    std::vector<Size> sizes = {{1, 1, 1},   {3, 2, 2},    {16, 16, 1},  {70, 130, 3},
                               {335, 9, 1}, {336, 10, 2}, {337, 11, 1}, {700, 61, 1}};
    if (!small) {
      sizes.insert(sizes.end(),
                   {{1920, 1080, 4}, {3840, 2160, 2}, {1919, 1079, 3}, {16384, 300, 1}});
    }
    int compared = 0;
    for (const Input& input : kInputs) {
      for (const Size& size : sizes) {
        for (int pad : {0, 1, 8}) {
          const Batch batch(input, size.width, size.height, size.pictures, pad, random_);
          for (const Output& output : kOutputs) {
            CompareOne(input, output, batch, size.width, size.height, size.pictures, pad);
            ++compared;
          }
        }
      }
    }
    std::printf("bytes: equal to the processor's (%s) in all of %d batches, %zu formats to %zu\n",
                birthmark::IsaName(birthmark::BestIsa()).data(), compared, std::size(kInputs),
                std::size(kOutputs));
  }

  void TimeAll() {
    constexpr int kWidth = 3840, kHeight = 2160, kPictures = 8;
    constexpr std::size_t kCopied = std::size_t{512} << 20;
    const CardMemory from(kCopied), to(kCopied);
    const Medians copy = Time([&] {
      Check(
          cudaMemcpyAsync(to.at(), from.at(), kCopied, cudaMemcpyDeviceToDevice, cudaStreamLegacy));
    });
    const double copy_gb_s = 2.0 * static_cast<double>(kCopied) / 1e6 / copy.middle;
    std::printf(
        "copy on the card: %.0f GB/s read and written (%.3f ms, middle half %.3f .. %.3f)\n",
        copy_gb_s, copy.middle, copy.low, copy.high);
    for (const Input& input : kInputs) {
      const Batch batch(input, kWidth, kHeight, kPictures, 0, random_);
      for (const Output& output : {kOutputs[0], kOutputs[5]}) {
        CompareOne(input, output, batch, kWidth, kHeight, kPictures, 0);
        birthmark::Target target;
        const std::ptrdiff_t picture = LayOut(output, kWidth, kHeight, 0, nullptr, target);
        const CardMemory out(static_cast<std::size_t>(picture) * kPictures);
        LayOut(output, kWidth, kHeight, 0, out.at(), target);
        Job job = JobFor(batch, target, picture);
        const Medians marked =
            Time([&] { Check(birthmark::cuda::Launch(kPictures, 0, kStream, job)); });
        const double bytes = kPictures * static_cast<double>(batch.picture_stride() + picture);
        const double gb_s = bytes / 1e6 / marked.middle;
        std::printf(
            "%-13s -> %s, 3840x2160 x 8: %.3f ms (middle half %.3f .. %.3f), %.0f GB/s, "
            "%.0f %% of the copy's\n",
            input.name, output.name, marked.middle, marked.low, marked.high, gb_s,
            100 * gb_s / copy_gb_s);
      }
    }
  }

 private:
  Job JobFor(const Batch& batch, const birthmark::Target& target, std::ptrdiff_t picture) const {
    Job job = {};
    job.source = batch.Source(true);
    job.picture_stride = batch.picture_stride();
    job.target = target;
    for (std::ptrdiff_t& stride : job.out_picture_stride) stride = picture;
    job.not_finite = not_finite_;
    birthmark::cuda::SetGains(mark_.gains, job);
    return job;
  }

  void CompareOne(const Input& input, const Output& output, const Batch& batch, int width,
                  int height, int pictures, int pad) {
    birthmark::Target target;
    const std::ptrdiff_t picture = LayOut(output, width, height, pad, nullptr, target);
    std::vector<std::uint8_t> found(static_cast<std::size_t>(picture * pictures), 77);
    std::vector<std::uint8_t> expected = found;
    CardMemory out(found.size());
    out.Put(found.data());
    LayOut(output, width, height, pad, out.at(), target);
    Job job = JobFor(batch, target, picture);
    Check(birthmark::cuda::Launch(pictures, 0, kStream, job));
    Check(birthmark::cuda::Synchronize(0, kStream));
    if (*not_finite_ != 0) Stop("finite values were taken for others");
    out.Get(found.data());
    const auto work = std::make_unique<birthmark::Workspace>();
    for (int i = 0; i < pictures; ++i) {
      LayOut(output, width, height, pad, expected.data() + i * picture, target);
      const birthmark::EmbedJob one = {
          batch.Source(false, i), target, {0, height, 0, width}, &mark_.gains};
      if (!birthmark::KernelFor(birthmark::BestIsa())->embed(one, *work)) Stop("NaN on the host");
    }
    const auto differs = std::mismatch(found.begin(), found.end(), expected.begin()).first;
    if (differs == found.end()) return;
    std::fprintf(stderr, "error: %s -> %s, %dx%d x %d, pad %d: byte %td differs\n", input.name,
                 output.name, width, height, pictures, pad, differs - found.begin());
    std::exit(1);
  }

  std::mt19937 random_{20240229};
  birthmark::MarkFile mark_;
  int* not_finite_ = nullptr;
};

}  // namespace

int main(int count, char** arguments) {
  int devices = 0;
  const Failure failure = birthmark::cuda::CountDevices(devices);
  if (failure != nullptr) {
    std::printf("no GPU: %s. Nothing was compared on a card and nothing was timed.\n", failure);
    return 2;
  }
  cudaDeviceProp card;
  Check(cudaGetDeviceProperties(&card, 0));
  std::printf("card: %s, compute capability %d.%d, %d multiprocessors\n", card.name, card.major,
              card.minor, card.multiProcessorCount);
  const bool small = count > 1 && std::string_view(arguments[1]) == "compare";
  Bench bench;
  bench.Compare(small);
  if (!small) bench.TimeAll();
  return 0;
}
