// The C interface: gives what the core gives, and refuses with a status what is wrong. With a
// folder as argument it writes there a mark, a picture and the marked picture instead.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "birthmark/birthmark.h"
#include "contract/mark_file.h"
#include "embed/embedder.h"
#include "tests/cpp/check.h"
#include "tests/cpp/example.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr int kWidth = 701, kHeight = 83;

Bytes MarkBytes() {
  const auto bytes = birthmark::WriteMarkFile(example::Mark());
  return Bytes(bytes.begin(), bytes.end());
}

Bytes Picture(int channels) {
  return example::Noise(std::size_t{kWidth} * kHeight * static_cast<std::size_t>(channels));
}

birthmark_source SourceOf(const Bytes& picture, int channels) {
  birthmark_source source;
  birthmark_source_init(&source, sizeof(source));
  source.width = kWidth;
  source.height = kHeight;
  CHECK(birthmark_source_pixels(&source, picture.data(), kWidth * channels, channels) ==
        BIRTHMARK_OK);
  return source;
}
birthmark_target TargetOf(Bytes& picture, int channels) {
  birthmark_target target;
  birthmark_target_init(&target, sizeof(target));
  CHECK(birthmark_target_pixels(&target, picture.data(), kWidth * channels, channels) ==
        BIRTHMARK_OK);
  return target;
}

// What the core makes of three channels.
Bytes Expected(const Bytes& picture) {
  Bytes out(picture.size());
  birthmark::Embedder embedder(example::Mark(), birthmark::Isa::kScalar);
  birthmark::Source source;
  birthmark::Target target;
  source.element = birthmark::Element::kUint8;
  source.width = kWidth;
  source.height = kHeight;
  for (int c = 0; c < 3; ++c) {
    source.channel[c] = {picture.data() + c, 3 * kWidth, 3};
    target.plane[c] = {out.data() + c, 3 * kWidth, 3};
  }
  CHECK(embedder.Embed(source, target, {0, kHeight, 0, kWidth}) == birthmark::Status::kOk);
  return out;
}

birthmark_context* Context(const char* kernel = nullptr) {
  const Bytes mark = MarkBytes();
  birthmark_context* context = nullptr;
  CHECK(birthmark_create(mark.data(), mark.size(), kernel, &context) == BIRTHMARK_OK);
  CHECK(context != nullptr);
  return context;
}

void WholeStripesAndTilesAreTheSame() {
  const Bytes picture = Picture(3), expected = Expected(picture);
  CHECK(expected != picture);
  const birthmark_source source = SourceOf(picture, 3);
  for (birthmark::Isa isa : birthmark::kAllIsas) {
    if (!birthmark::IsaIsUsable(isa)) continue;
    birthmark_context* const context = Context(birthmark::IsaName(isa).data());
    CHECK(std::string(birthmark_kernel(context)) == birthmark::IsaName(isa));
    Bytes out(picture.size());
    birthmark_target target = TargetOf(out, 3);
    CHECK(birthmark_embed(context, &source, &target, nullptr) == BIRTHMARK_OK);
    CHECK(out == expected);
    out.assign(out.size(), 0);
    for (int y = 0; y < kHeight; y += 30) {
      for (int x = 0; x < kWidth; x += 101) {
        const birthmark_window window = {y, y + 30 < kHeight ? y + 30 : kHeight, x,
                                         x + 101 < kWidth ? x + 101 : kWidth};
        birthmark_target_pixels(&target, out.data() + 3 * (y * kWidth + x), 3 * kWidth, 3);
        CHECK(birthmark_embed(context, &source, &target, &window) == BIRTHMARK_OK);
      }
    }
    CHECK(out == expected);
    birthmark_destroy(context);
  }
}

void AlphaGreyAndVideoAreThere() {
  const Bytes picture = Picture(4);
  const birthmark_source source = SourceOf(picture, 4);
  birthmark_context* const context = Context();
  Bytes out(picture.size());
  birthmark_target target = TargetOf(out, 4);
  CHECK(birthmark_embed(context, &source, &target, nullptr) == BIRTHMARK_OK);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int change = out[i] - picture[i];
    CHECK(i % 4 == 3 ? change == 0 : change >= -2 && change <= 2);
  }
  target = TargetOf(out, 1);
  CHECK(birthmark_embed(context, &source, &target, nullptr) == BIRTHMARK_OK);
  target.colours = BIRTHMARK_YUV;
  constexpr int kHalf = (kWidth + 1) / 2;
  Bytes halves(std::size_t{2} * kHalf * ((kHeight + 1) / 2));
  target.plane[1] = {halves.data(), 2 * kHalf, 2};
  target.plane[2] = {halves.data() + 1, 2 * kHalf, 2};
  CHECK(birthmark_embed(context, &source, &target, nullptr) == BIRTHMARK_OK);
  birthmark_destroy(context);
}

void StreamsAreTheSame() {
  const Bytes picture = Picture(3), expected = Expected(picture);
  birthmark_context* const context = Context();
  birthmark_stream* stream = nullptr;
  CHECK(birthmark_stream_create(context, kWidth, 0, &stream) == BIRTHMARK_OK);
  birthmark_destroy(context);  // the stream does without it
  Bytes out(picture.size());
  int pushed = 0, pulled = 0;
  while (pulled < kHeight) {
    birthmark_source rows = SourceOf(picture, 3);
    if (pushed < kHeight) {
      rows.height = kHeight - pushed < 7 ? kHeight - pushed : 7;
      CHECK(birthmark_stream_room(stream) >= rows.height);
      birthmark_source_pixels(&rows, picture.data() + 3 * kWidth * pushed, 3 * kWidth, 3);
      CHECK(birthmark_stream_push(stream, &rows) == BIRTHMARK_OK);
      pushed += rows.height;
    } else {
      CHECK(birthmark_stream_end(stream) == BIRTHMARK_OK);
    }
    const int ready = birthmark_stream_ready(stream);
    if (ready == 0) continue;
    birthmark_target target = TargetOf(out, 3);
    birthmark_target_pixels(&target, out.data() + 3 * kWidth * pulled, 3 * kWidth, 3);
    CHECK(birthmark_stream_pull(stream, &target, ready + 1) == BIRTHMARK_WINDOW);
    CHECK(birthmark_stream_pull(stream, &target, ready) == BIRTHMARK_OK);
    pulled += ready;
  }
  CHECK(out == expected);
  const birthmark_source rows = SourceOf(picture, 3);
  CHECK(birthmark_stream_push(stream, &rows) == BIRTHMARK_STREAM_ENDED);
  birthmark_stream_destroy(stream);
}

void StatisticsAdd() {
  const Bytes picture = Picture(3);
  const birthmark_source source = SourceOf(picture, 3);
  birthmark_context* const context = Context();
  std::int64_t once[BIRTHMARK_STATISTICS] = {}, twice[BIRTHMARK_STATISTICS] = {};
  CHECK(birthmark_statistics(context, &source, once) == BIRTHMARK_OK);
  for (int i = 0; i < 2; ++i) CHECK(birthmark_statistics(context, &source, twice) == BIRTHMARK_OK);
  std::int64_t energy = 0;
  for (int i = 0; i < BIRTHMARK_STATISTICS; ++i) {
    CHECK(twice[i] == 2 * once[i]);
    if (i % 18 == 17) energy += once[i];
  }
  CHECK(energy > 0);
  CHECK(birthmark_statistics(context, &source, nullptr) == BIRTHMARK_NO_POINTER);
  birthmark_destroy(context);
}

void BadMarksAndKernelsAreRefused() {
  const Bytes mark = MarkBytes();
  birthmark_context* context = nullptr;
  const auto status_of = [&](const Bytes& bytes) {
    const birthmark_status status = birthmark_create(bytes.data(), bytes.size(), nullptr, &context);
    CHECK(context == nullptr);
    return status;
  };
  Bytes other = mark;
  other[0] = 'X';
  CHECK(status_of(other) == BIRTHMARK_NOT_A_MARK_FILE);
  other = mark;
  other[4] ^= 1;
  CHECK(status_of(other) == BIRTHMARK_OTHER_CONTRACT);
  other = mark;
  other.back() ^= 1;
  CHECK(status_of(other) == BIRTHMARK_DAMAGED);
  other.pop_back();
  CHECK(status_of(other) == BIRTHMARK_TRUNCATED);
  birthmark::MarkFile loud;
  for (auto& orbit : loud.gains) orbit[0] = INT16_MAX;
  const auto bytes = birthmark::WriteMarkFile(loud);
  CHECK(status_of(Bytes(bytes.begin(), bytes.end())) == BIRTHMARK_GAINS_OUT_OF_BOUNDS);
  CHECK(birthmark_create(nullptr, 0, "sse9", &context) == BIRTHMARK_KERNEL);
  CHECK(birthmark_create(nullptr, 0, nullptr, nullptr) == BIRTHMARK_NO_POINTER);
}

void BadPicturesAreRefused() {
  const Bytes picture = Picture(3);
  Bytes out(picture.size());
  const birthmark_source good = SourceOf(picture, 3);
  const birthmark_target good_target = TargetOf(out, 3);
  birthmark_context* const context = Context();
  const auto with_source = [&](auto change) {
    birthmark_source source = good;
    change(source);
    return birthmark_embed(context, &source, &good_target, nullptr);
  };
  const auto with_target = [&](auto change) {
    birthmark_target target = good_target;
    change(target);
    return birthmark_embed(context, &good, &target, nullptr);
  };
  CHECK(birthmark_embed(nullptr, &good, &good_target, nullptr) == BIRTHMARK_NO_POINTER);
  CHECK(birthmark_embed(context, nullptr, &good_target, nullptr) == BIRTHMARK_NO_POINTER);
  CHECK(birthmark_embed(context, &good, nullptr, nullptr) == BIRTHMARK_NO_POINTER);
  CHECK(with_source([](auto& s) { s.struct_size = 0; }) == BIRTHMARK_STRUCT_SIZE);
  CHECK(with_source([](auto& s) { s.struct_size = ~std::size_t{0}; }) == BIRTHMARK_STRUCT_SIZE);
  CHECK(with_target([](auto& t) { t.struct_size -= 8; }) == BIRTHMARK_STRUCT_SIZE);
  for (int side : {0, -1, INT32_MIN, INT32_MAX, (1 << 20) + 1}) {
    CHECK(with_source([=](auto& s) { s.width = side; }) == BIRTHMARK_SIZE);
    CHECK(with_source([=](auto& s) { s.height = side; }) == BIRTHMARK_SIZE);
  }
  for (int element : {-1, 2, 6, INT32_MAX}) {
    CHECK(with_source([=](auto& s) { s.element = element; }) == BIRTHMARK_ELEMENT);
  }
  for (std::ptrdiff_t stride :
       {PTRDIFF_MIN, PTRDIFF_MIN + 1, PTRDIFF_MIN / 80, PTRDIFF_MAX / 2, PTRDIFF_MAX}) {
    CHECK(with_source([=](auto& s) { s.channel[1].row_stride = stride; }) == BIRTHMARK_REACH);
    CHECK(with_source([=](auto& s) { s.channel[2].column_stride = stride; }) == BIRTHMARK_REACH);
    CHECK(with_target([=](auto& t) { t.plane[1].row_stride = stride; }) == BIRTHMARK_REACH);
  }
  CHECK(with_source([](auto& s) { s.channel[2].data = nullptr; }) == BIRTHMARK_NO_POINTER);
  CHECK(with_target([](auto& t) { t.plane[0].data = nullptr; }) == BIRTHMARK_NO_POINTER);
  CHECK(with_source([](auto& s) { s.quantum = 0; }) == BIRTHMARK_RANGE);
  CHECK(with_source([](auto& s) { s.zero_point = INT32_MIN; }) == BIRTHMARK_RANGE);
  CHECK(with_source([](auto& s) { s.scale[1] = std::numeric_limits<float>::infinity(); }) ==
        BIRTHMARK_RANGE);
  CHECK(with_target([](auto& t) { t.offset[1] = std::numeric_limits<float>::quiet_NaN(); }) ==
        BIRTHMARK_RANGE);
  CHECK(with_target([](auto& t) { t.colours = 3; }) == BIRTHMARK_ELEMENT);
  CHECK(with_target([](auto& t) { t.matrix = 2; }) == BIRTHMARK_ELEMENT);
  CHECK(with_target([](auto& t) { t.element = BIRTHMARK_FLOAT16; }) == BIRTHMARK_ELEMENT);
  CHECK(with_target([](auto& t) { t.plane[1].data = t.plane[0].data; }) == BIRTHMARK_SELF_OVERLAP);
  CHECK(with_target([&](auto& t) {
          for (auto& plane : t.plane) {
            if (plane.data != nullptr) {
              plane.data = const_cast<std::uint8_t*>(picture.data()) +
                           (static_cast<std::uint8_t*>(plane.data) - out.data());
            }
          }
        }) == BIRTHMARK_OVERLAP);
  for (const birthmark_window& window :
       std::vector<birthmark_window>{{0, 0, 0, 9},
                                     {-1, 9, 0, 9},
                                     {0, kHeight + 1, 0, 9},
                                     {0, 9, 9, 9},
                                     {0, 9, 0, INT32_MAX},
                                     {INT32_MAX, INT32_MIN, 0, 9}}) {
    CHECK(birthmark_embed(context, &good, &good_target, &window) == BIRTHMARK_WINDOW);
  }
  CHECK(out == Bytes(out.size()));  // nothing was written

  std::vector<float> floats(picture.size());
  floats[777] = std::numeric_limits<float>::quiet_NaN();
  birthmark_source source = good;
  source.element = BIRTHMARK_FLOAT32;
  birthmark_source_pixels(&source, floats.data(), 12 * kWidth, 3);
  CHECK(birthmark_embed(context, &source, &good_target, nullptr) == BIRTHMARK_NOT_FINITE);

  birthmark_stream* stream = nullptr;
  CHECK(birthmark_stream_create(context, 0, 0, &stream) == BIRTHMARK_SIZE);
  CHECK(stream == nullptr);
  CHECK(birthmark_stream_create(context, kWidth, 1, nullptr) == BIRTHMARK_NO_POINTER);
  CHECK(birthmark_stream_create(context, kWidth, 1, &stream) == BIRTHMARK_OK);
  CHECK(birthmark_stream_push(stream, &source) == BIRTHMARK_NOT_FINITE);
  CHECK(birthmark_stream_pull(stream, &good_target, 1) == BIRTHMARK_WINDOW);
  for (birthmark_status status = BIRTHMARK_OK; status == BIRTHMARK_OK;) {
    status = birthmark_stream_push(stream, &good);
    CHECK(status == BIRTHMARK_OK || status == BIRTHMARK_STREAM_FULL);
  }
  birthmark_stream_destroy(stream);
  birthmark_stream_destroy(nullptr);
  birthmark_destroy(context);
  birthmark_destroy(nullptr);
}

void ALaterCallersStructureIsTakenUnlessItAsksForMore() {
  const Bytes picture = Picture(3), expected = Expected(picture);
  Bytes out(picture.size());
  struct Later {
    birthmark_source now;
    std::int64_t news;
  } later;
  birthmark_source_init(&later.now, sizeof(later));
  later.now.width = kWidth;
  later.now.height = kHeight;
  birthmark_source_pixels(&later.now, picture.data(), 3 * kWidth, 3);
  const birthmark_target target = TargetOf(out, 3);
  birthmark_context* const context = Context();
  CHECK(birthmark_embed(context, &later.now, &target, nullptr) == BIRTHMARK_OK);
  CHECK(out == expected);
  later.news = 1;
  CHECK(birthmark_embed(context, &later.now, &target, nullptr) == BIRTHMARK_STRUCT_SIZE);
  struct {
    birthmark_target now;
    std::int64_t news;
  } later_target;
  birthmark_target_init(&later_target.now, sizeof(later_target));
  birthmark_target_pixels(&later_target.now, out.data(), 3 * kWidth, 3);
  later.news = 0;
  CHECK(birthmark_embed(context, &later.now, &later_target.now, nullptr) == BIRTHMARK_OK);
  later_target.news = 1;
  CHECK(birthmark_embed(context, &later.now, &later_target.now, nullptr) == BIRTHMARK_STRUCT_SIZE);
  birthmark_destroy(context);
}

void EveryStatusHasItsOwnLine() {
  std::vector<std::string> lines;
  for (birthmark_status status = 0; status <= BIRTHMARK_GAINS_OUT_OF_BOUNDS; ++status) {
    const std::string line = birthmark_status_text(status);
    CHECK(!line.empty() && line.find('\n') == std::string::npos && line != "unknown status");
    for (const std::string& other : lines) CHECK(line != other);
    lines.push_back(line);
  }
  CHECK(std::string(birthmark_status_text(-1)) == "unknown status");
  CHECK(std::string(birthmark_status_text(1000)) == "unknown status");
}

void WriteFile(const std::string& path, const std::string& head, const Bytes& bytes) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  CHECK(file != nullptr);
  CHECK(std::fwrite(head.data(), 1, head.size(), file) == head.size());
  CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
  CHECK(std::fclose(file) == 0);
}

void WriteExample(const std::string& folder) {
  const std::string head =
      "P6\n" + std::to_string(kWidth) + " " + std::to_string(kHeight) + "\n255\n";
  WriteFile(folder + "/in.ppm", head, Picture(3));
  WriteFile(folder + "/expected.ppm", head, Expected(Picture(3)));
  Bytes mark = MarkBytes();
  WriteFile(folder + "/example.mark", "", mark);
  mark[4] ^= 1;
  WriteFile(folder + "/other.mark", "", mark);
}

}  // namespace

int main(int count, char** argument) {
  if (count == 2) {
    WriteExample(argument[1]);
    return 0;
  }
  CHECK(birthmark_abi_version() == BIRTHMARK_ABI_VERSION);
  CHECK(birthmark_contract_version() == birthmark::kContractVersion);
  WholeStripesAndTilesAreTheSame();
  AlphaGreyAndVideoAreThere();
  StreamsAreTheSame();
  StatisticsAdd();
  BadMarksAndKernelsAreRefused();
  BadPicturesAreRefused();
  ALaterCallersStructureIsTakenUnlessItAsksForMore();
  EveryStatusHasItsOwnLine();
  std::puts("c_abi: ok");
  return 0;
}
