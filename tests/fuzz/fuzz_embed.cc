// birthmark_embed on pictures of any format, stride, size and window: every kernel gives the status
// and the bytes of the plain one, nothing beside the window's cells is written, a refusal writes
// nothing, and a window is what the whole picture has there. Statistics agree too. An input
// compares one kernel with the plain one, or at times all of them; which, is the input's choice.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "input.h"
#include "picture.h"

namespace {

using birthmark::Isa;
using fuzz::Bytes;

// For each mark a context of every kernel that works here, the plain one first.
const std::vector<fuzz::Context>& Contexts(int mark) {
  static const auto* const all = [] {
    auto* made = new std::array<std::vector<fuzz::Context>, fuzz::kMarks>;
    for (int which = 0; which < fuzz::kMarks; ++which) {
      for (Isa isa : birthmark::kAllIsas) {
        if (birthmark::IsaIsUsable(isa)) {
          (*made)[static_cast<std::size_t>(which)].push_back(fuzz::NewContext(which, isa));
        }
      }
    }
    return made;
  }();
  return (*all)[static_cast<std::size_t>(mark)];
}

birthmark_window ChooseWindow(fuzz::Input& input, int width, int height) {
  birthmark_window window = {0, height, 0, width};
  if (input.OneIn(2)) {
    window.first_row = input.Between(0, height - 1);
    window.last_row = input.Between(window.first_row + 1, height);
    window.first_column = input.Between(0, width - 1);
    window.last_column = input.Between(window.first_column + 1, width);
  }
  if (input.OneIn(2)) {  // as halved colours need it
    window.first_row &= ~1;
    window.first_column &= ~1;
    window.last_row = std::min((window.last_row + 1) & ~1, height);
    window.last_column = std::min((window.last_column + 1) & ~1, width);
  }
  if (input.OneIn(16)) {
    const std::int32_t odd = input.Of({-1, 0, INT32_MAX, INT32_MIN, 1 << 20});
    (input.OneIn(2) ? window.last_row : window.first_column) = odd;
  }
  return window;
}

// The plain kernel and those that are compared with it.
std::vector<birthmark_context*> ChooseKernels(fuzz::Input& input, int mark) {
  const std::vector<fuzz::Context>& all = Contexts(mark);
  std::vector<birthmark_context*> chosen = {all[0].get()};
  const std::size_t others = all.size() - 1;
  const bool every = input.OneIn(16);
  const std::size_t one = static_cast<std::size_t>(input.Byte());
  for (std::size_t i = 0; i < others; ++i) {
    if (every || one % others == i) chosen.push_back(all[1 + i].get());
  }
  return chosen;
}

void StatisticsAgree(const std::vector<birthmark_context*>& contexts,
                     const birthmark_source& source) {
  std::int64_t expected[BIRTHMARK_STATISTICS] = {};
  const birthmark_status status = birthmark_statistics(contexts[0], &source, expected);
  for (std::size_t i = 1; i < contexts.size(); ++i) {
    std::int64_t found[BIRTHMARK_STATISTICS] = {};
    CHECK(birthmark_statistics(contexts[i], &source, found) == status);
    if (status == BIRTHMARK_OK) CHECK(std::memcmp(found, expected, sizeof(found)) == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const int mark = input.Byte() % fuzz::kMarks;
  const auto [width, height] = fuzz::ChooseSides(input, 4);
  fuzz::SourcePicture picture(input, width, height);
  if (!picture.usable()) return 0;
  if (input.OneIn(32)) picture.source.height = input.Of({0, -1, INT32_MAX, INT32_MIN});

  int planes = 0;
  birthmark_target target = fuzz::ChooseTarget(input, planes);
  const birthmark_window window = ChooseWindow(input, width, height);
  // Where the window is nonsense, the size of its target does not matter.
  const bool sensible = window.first_row >= 0 && window.first_row < window.last_row &&
                        window.last_row <= height && window.first_column >= 0 &&
                        window.first_column < window.last_column && window.last_column <= width;
  const int columns = sensible ? window.last_column - window.first_column : 1;
  const int rows = sensible ? window.last_row - window.first_row : 1;

  const std::ptrdiff_t bytes = fuzz::SizeOf(target.element);
  const fuzz::Layout layout = fuzz::ChooseLayout(input, planes, columns, rows, bytes);
  fuzz::Extent extent;
  for (int p = 0; p < planes; ++p) {
    extent.Add(layout.first[p], layout.row[p], layout.column[p],
               fuzz::PlaneSide(target, p, columns), fuzz::PlaneSide(target, p, rows), bytes);
  }
  const bool leaves_memory = extent.leaves_memory();
  if (!leaves_memory && extent.size() > fuzz::Int128{fuzz::kMostBytes}) return 0;
  if (leaves_memory) extent = {0, fuzz::kRefusedBytes};
  const Bytes before(static_cast<std::size_t>(extent.size()), 0xA5);
  Bytes memory = before, expected;
  for (int p = 0; p < planes; ++p) {
    target.plane[p] = {memory.data() - static_cast<std::ptrdiff_t>(extent.least) +
                           (leaves_memory ? 0 : layout.first[p]),
                       layout.row[p], layout.column[p]};
  }
  if (input.OneIn(64)) target.plane[input.Byte() % planes].data = nullptr;
  if (planes == 4 && target.plane[3].data == nullptr) planes = 3;  // no alpha is wanted
  if (input.OneIn(64)) picture.source.channel[input.Byte() % 3].data = nullptr;
  if (input.OneIn(64)) {
    target.plane[0].data = const_cast<void*>(picture.source.channel[input.Byte() % 3].data);
  }

  const std::vector<birthmark_context*> contexts = ChooseKernels(input, mark);
  birthmark_status status = BIRTHMARK_OK;
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    memory.assign(before.begin(), before.end());
    const birthmark_status now = birthmark_embed(contexts[i], &picture.source, &target, &window);
    CHECK(birthmark_status_text(now) != nullptr);
    if (i == 0) {
      status = now;
      expected = memory;
      if (!sensible || leaves_memory || picture.leaves_memory()) CHECK(now > BIRTHMARK_NO_MEMORY);
    }
    CHECK(now == status);
    if (now == BIRTHMARK_OK) CHECK(memory == expected);
    if (now > BIRTHMARK_NOT_FINITE) CHECK(memory == before);
  }
  memory = expected;
  if (input.OneIn(4)) StatisticsAgree(contexts, picture.source);
  if (status != BIRTHMARK_OK) return 0;

  fuzz::PackedTarget whole(target, planes, width, height);
  const bool is_whole = birthmark_embed(contexts.back(), &picture.source, &whole.target, nullptr) ==
                        BIRTHMARK_OK;  // else not finite elsewhere
  const std::size_t cell = static_cast<std::size_t>(bytes);
  for (int p = 0; p < planes; ++p) {
    const int half = target.colours == BIRTHMARK_YUV && p > 0 ? 2 : 1;
    for (int y = 0; y < fuzz::PlaneSide(target, p, rows); ++y) {
      for (int x = 0; x < fuzz::PlaneSide(target, p, columns); ++x) {
        std::uint8_t* const at = fuzz::CellAt(target, p, y, x);
        if (is_whole) {
          CHECK(std::memcmp(at,
                            fuzz::CellAt(whole.target, p, y + window.first_row / half,
                                         x + window.first_column / half),
                            cell) == 0);
        }
        std::memset(at, 0xA5, cell);
      }
    }
  }
  CHECK(memory == before);  // nothing but those cells was written
  return 0;
}
