// A stream of rows, pushed and pulled in any portions and misused at times, gives the bytes of the
// whole picture. Each row that is pulled alone costs its halo of 42 rows, so whatever has many rows
// is narrow.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "input.h"
#include "picture.h"

namespace {

using birthmark::Isa;

// Of every kernel that works here with every mark.
birthmark_context* ChooseContext(fuzz::Input& input) {
  static const auto* const all = [] {
    auto* made = new std::vector<fuzz::Context>;
    for (Isa isa : birthmark::kAllIsas) {
      for (int mark = 0; mark < fuzz::kMarks && birthmark::IsaIsUsable(isa); ++mark) {
        made->push_back(fuzz::NewContext(mark, isa));
      }
    }
    return made;
  }();
  return (*all)[static_cast<std::size_t>(input.Byte()) % all->size()].get();
}

// At times more rows than the stream's ring holds.
fuzz::Sides ChooseSides(fuzz::Input& input) {
  if (input.OneIn(64)) {
    const int width = input.Between(1, 8);
    return {width, input.Between(100, 220)};
  }
  return fuzz::ChooseSides(input, 24);
}

// The rows [first, first + count) of a picture.
birthmark_source Rows(const birthmark_source& whole, int first, int count) {
  birthmark_source rows = whole;
  rows.height = count;
  for (birthmark_source_plane& plane : rows.channel) {
    if (plane.data == nullptr) continue;
    plane.data = static_cast<const std::uint8_t*>(plane.data) + plane.row_stride * first;
  }
  return rows;
}

birthmark_target RowsOf(const birthmark_target& whole, int first) {
  birthmark_target rows = whole;
  for (int p = 0; p < 4; ++p) {
    if (rows.plane[p].data == nullptr) continue;
    const bool halved = whole.colours == BIRTHMARK_YUV && p > 0;
    rows.plane[p].data = fuzz::CellAt(whole, p, halved ? first / 2 : first, 0);
  }
  return rows;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  birthmark_context* const context = ChooseContext(input);
  const auto [width, height] = ChooseSides(input);
  const fuzz::SourcePicture picture(input, width, height);
  if (!picture.usable() || picture.leaves_memory()) return 0;
  int planes = 0;
  const birthmark_target kind = fuzz::ChooseTarget(input, planes);
  fuzz::PackedTarget expected(kind, planes, width, height), found(kind, planes, width, height);
  const birthmark_status whole =
      birthmark_embed(context, &picture.source, &expected.target, nullptr);
  // Of what is wrong with source or target only whether it is refused is compared.
  if (whole > BIRTHMARK_NOT_FINITE) {
    CHECK(found.memory == expected.memory);
    return 0;
  }

  birthmark_stream* made = nullptr;
  CHECK(birthmark_stream_create(context, width, planes == 4, &made) == BIRTHMARK_OK);
  const std::unique_ptr<birthmark_stream, fuzz::Destroyer> stream(made);
  int pushed = 0, pulled = 0;
  bool ended = false;
  while (pulled < height) {
    const int room = birthmark_stream_room(stream.get());
    const int ready = birthmark_stream_ready(stream.get());
    CHECK(room >= 0 && ready >= 0 && pulled + ready <= pushed);
    CHECK(room > 0 || ready > 0);  // there is always something to do
    if (input.OneIn(8)) {          // misuse changes nothing
      const birthmark_target rest = RowsOf(found.target, pulled);
      CHECK(birthmark_stream_pull(stream.get(), &rest, ready + 1) != BIRTHMARK_OK);
      CHECK(birthmark_stream_pull(stream.get(), &rest, -1) != BIRTHMARK_OK);
      birthmark_source other = Rows(picture.source, 0, 1);
      other.width = width > 1 ? width - 1 : 2;
      CHECK(birthmark_stream_push(stream.get(), &other) != BIRTHMARK_OK);
      CHECK(birthmark_stream_room(stream.get()) == room);
      CHECK(birthmark_stream_ready(stream.get()) == ready);
    }
    const bool may_push = room > 0 && pushed < height && !ended;
    if (may_push && (ready == 0 || input.OneIn(2))) {
      const int count = std::min({input.Between(1, 24), height - pushed, room});
      const birthmark_source rows = Rows(picture.source, pushed, count);
      const birthmark_status status = birthmark_stream_push(stream.get(), &rows);
      if (status == BIRTHMARK_NOT_FINITE) {
        CHECK(whole == BIRTHMARK_NOT_FINITE);
        CHECK(birthmark_stream_room(stream.get()) == room);
        return 0;
      }
      CHECK(status == BIRTHMARK_OK);
      pushed += count;
    } else if (ready > 0) {
      const int wanted = std::min(input.Between(1, 90), ready);
      // Halved colours are pulled by two, except at the end.
      const int count =
          kind.colours == BIRTHMARK_YUV && wanted < ready ? std::max(wanted & ~1, 2) : wanted;
      const birthmark_target rows = RowsOf(found.target, pulled);
      CHECK(birthmark_stream_pull(stream.get(), &rows, std::min(count, ready)) == BIRTHMARK_OK);
      pulled += std::min(count, ready);
    } else {
      CHECK(birthmark_stream_end(stream.get()) == BIRTHMARK_OK);
      ended = true;
    }
  }
  // A NaN that the stream took would have been published.
  CHECK(whole == BIRTHMARK_OK);
  CHECK(found.memory == expected.memory);
  return 0;
}
