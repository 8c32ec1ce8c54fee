// The C interface: checks handles and structures, calls the core. Needs no C++ runtime: objects are
// made in plain memory, and nothing throws.
#include "birthmark/birthmark.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>

#include "embed/embedder.h"
#include "embed/row_stream.h"

using birthmark::Colours;
using birthmark::Element;
using birthmark::Status;

struct birthmark_context {
  birthmark::Embedder embedder;
};
struct birthmark_stream {
  birthmark::RowStream rows;
};

namespace {

static_assert(BIRTHMARK_HALO == birthmark::kHalo);
static_assert(BIRTHMARK_TONES == birthmark::kTones);
static_assert(BIRTHMARK_STATISTICS == birthmark::kAllStatistics);
static_assert(BIRTHMARK_UINT8 == static_cast<int>(Element::kUint8));
static_assert(BIRTHMARK_INT8 == static_cast<int>(Element::kInt8));
static_assert(BIRTHMARK_UINT10 == static_cast<int>(Element::kUint10));
static_assert(BIRTHMARK_FLOAT16 == static_cast<int>(Element::kFloat16));
static_assert(BIRTHMARK_BFLOAT16 == static_cast<int>(Element::kBfloat16));
static_assert(BIRTHMARK_FLOAT32 == static_cast<int>(Element::kFloat32));
static_assert(BIRTHMARK_RGB == static_cast<int>(Colours::kRgb));
static_assert(BIRTHMARK_GREY == static_cast<int>(Colours::kGrey));
static_assert(BIRTHMARK_YUV == static_cast<int>(Colours::kYuv));
static_assert(BIRTHMARK_OK == static_cast<int>(Status::kOk));
static_assert(BIRTHMARK_NOT_FINITE == static_cast<int>(Status::kNotFinite));
static_assert(BIRTHMARK_NO_MEMORY == static_cast<int>(Status::kNoMemory));
static_assert(BIRTHMARK_NO_POINTER == static_cast<int>(Status::kNoPointer));
static_assert(BIRTHMARK_SIZE == static_cast<int>(Status::kSize));
static_assert(BIRTHMARK_REACH == static_cast<int>(Status::kReach));
static_assert(BIRTHMARK_WINDOW == static_cast<int>(Status::kWindow));
static_assert(BIRTHMARK_ODD_WINDOW == static_cast<int>(Status::kOddWindow));
static_assert(BIRTHMARK_ELEMENT == static_cast<int>(Status::kElement));
static_assert(BIRTHMARK_RANGE == static_cast<int>(Status::kRange));
static_assert(BIRTHMARK_OVERLAP == static_cast<int>(Status::kOverlap));
static_assert(BIRTHMARK_SELF_OVERLAP == static_cast<int>(Status::kSelfOverlap));
static_assert(BIRTHMARK_STREAM_FULL == static_cast<int>(Status::kStreamFull));
static_assert(BIRTHMARK_STREAM_ENDED == static_cast<int>(Status::kStreamEnded));

birthmark_status CodeOf(Status status) { return static_cast<birthmark_status>(status); }

birthmark_status CodeOf(birthmark::MarkFileStatus status) {
  switch (status) {
    case birthmark::MarkFileStatus::kOk:
      return BIRTHMARK_OK;
    case birthmark::MarkFileStatus::kNotAMarkFile:
      return BIRTHMARK_NOT_A_MARK_FILE;
    case birthmark::MarkFileStatus::kOtherContract:
      return BIRTHMARK_OTHER_CONTRACT;
    case birthmark::MarkFileStatus::kTruncated:
      return BIRTHMARK_TRUNCATED;
    case birthmark::MarkFileStatus::kDamaged:
      return BIRTHMARK_DAMAGED;
    case birthmark::MarkFileStatus::kGainsOutOfBounds:
      break;
  }
  return BIRTHMARK_GAINS_OUT_OF_BOUNDS;
}

// An object in plain memory; null when there is none.
template <class T, class... Arguments>
T* Make(Arguments&&... arguments) {
  static_assert(alignof(T) <= alignof(std::max_align_t));
  void* const memory = std::malloc(sizeof(T));
  return memory != nullptr ? new (memory) T{{static_cast<Arguments&&>(arguments)...}} : nullptr;
}
template <class T>
void Destroy(T* object) {
  if (object == nullptr) return;
  object->~T();
  std::free(object);
}

// Copies a caller's structure. One of a later version is taken as long as it does not use what this
// one does not know.
template <class Struct>
bool Copy(const Struct* from, Struct& to) {
  std::size_t size = 0;
  std::memcpy(&size, from, sizeof(size));
  if (size < sizeof(Struct) || size > 4096) return false;
  const char* const bytes = reinterpret_cast<const char*>(from);
  for (std::size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] != 0) return false;
  }
  std::memcpy(&to, from, sizeof(Struct));
  return true;
}

std::ptrdiff_t SizeOf(std::int32_t element) {
  return element == BIRTHMARK_FLOAT32                              ? 4
         : element == BIRTHMARK_UINT8 || element == BIRTHMARK_INT8 ? 1
                                                                   : 2;
}

birthmark_status Read(const birthmark_source* given, birthmark::Source& source) {
  if (given == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark_source from;
  if (!Copy(given, from)) return BIRTHMARK_STRUCT_SIZE;
  if (from.element < 0 || from.element > BIRTHMARK_FLOAT32) return BIRTHMARK_ELEMENT;
  source.width = from.width;
  source.height = from.height;
  source.element = static_cast<Element>(from.element);
  source.zero_point = from.zero_point;
  source.quantum = from.quantum;
  for (int c = 0; c < birthmark::kChannels; ++c) {
    source.scale[c] = from.scale[c];
    source.offset[c] = from.offset[c];
    source.channel[c] = {static_cast<const std::uint8_t*>(from.channel[c].data),
                         from.channel[c].row_stride, from.channel[c].column_stride};
  }
  return BIRTHMARK_OK;
}

birthmark_status Read(const birthmark_target* given, birthmark::Target& target) {
  if (given == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark_target from;
  if (!Copy(given, from)) return BIRTHMARK_STRUCT_SIZE;
  if (from.element < 0 || from.element > BIRTHMARK_FLOAT32 || from.colours < 0 ||
      from.colours > BIRTHMARK_YUV || from.matrix < 0 || from.matrix > BIRTHMARK_BT709) {
    return BIRTHMARK_ELEMENT;
  }
  target.colours = static_cast<Colours>(from.colours);
  target.element = static_cast<Element>(from.element);
  target.yuv = birthmark::kYuvWeights[from.matrix][from.full_range != 0 ? 0 : 1];
  for (int p = 0; p < birthmark::kChannels; ++p) {
    target.scale[p] = from.scale[p];
    target.offset[p] = from.offset[p];
    target.plane[p] = {static_cast<std::uint8_t*>(from.plane[p].data), from.plane[p].row_stride,
                       from.plane[p].column_stride};
  }
  return BIRTHMARK_OK;
}

}  // namespace

extern "C" {

uint32_t birthmark_abi_version(void) { return BIRTHMARK_ABI_VERSION; }
uint32_t birthmark_contract_version(void) { return birthmark::kContractVersion; }

const char* birthmark_status_text(birthmark_status status) {
  using birthmark::MarkFileStatus;
  switch (status) {
    case BIRTHMARK_STRUCT_SIZE:
      return "a structure's size is not set, or it is of a version that this library does not know";
    case BIRTHMARK_KERNEL:
      return "there is no such kernel, or this machine cannot run it";
    case BIRTHMARK_NOT_A_MARK_FILE:
      return Describe(MarkFileStatus::kNotAMarkFile);
    case BIRTHMARK_OTHER_CONTRACT:
      return Describe(MarkFileStatus::kOtherContract);
    case BIRTHMARK_TRUNCATED:
      return Describe(MarkFileStatus::kTruncated);
    case BIRTHMARK_DAMAGED:
      return Describe(MarkFileStatus::kDamaged);
    case BIRTHMARK_GAINS_OUT_OF_BOUNDS:
      return Describe(MarkFileStatus::kGainsOutOfBounds);
    default:
      return Describe(static_cast<Status>(status));
  }
}

void birthmark_source_init(birthmark_source* source, size_t struct_size) {
  if (source == nullptr || struct_size < sizeof(*source)) return;
  std::memset(source, 0, struct_size);
  source->struct_size = struct_size;
  source->quantum = birthmark::kByteQuantum;
  std::fill_n(source->scale, birthmark::kChannels, 1.0f);
}

void birthmark_target_init(birthmark_target* target, size_t struct_size) {
  if (target == nullptr || struct_size < sizeof(*target)) return;
  std::memset(target, 0, struct_size);
  target->struct_size = struct_size;
  std::fill_n(target->scale, birthmark::kChannels, 1.0f / birthmark::kWhiteQ6);
}

birthmark_status birthmark_source_pixels(birthmark_source* source, const void* data,
                                         ptrdiff_t row_stride, int32_t channels) {
  if (source == nullptr || data == nullptr) return BIRTHMARK_NO_POINTER;
  if (channels != 1 && channels != 3 && channels != 4) return BIRTHMARK_ELEMENT;
  const std::ptrdiff_t bytes = SizeOf(source->element);
  for (int c = 0; c < birthmark::kChannels; ++c) {
    const char* const first = static_cast<const char*>(data) + (channels == 1 ? 0 : c) * bytes;
    source->channel[c] = {c < 3 || channels == 4 ? first : nullptr, row_stride, channels * bytes};
  }
  return BIRTHMARK_OK;
}

birthmark_status birthmark_target_pixels(birthmark_target* target, void* data, ptrdiff_t row_stride,
                                         int32_t channels) {
  if (target == nullptr || data == nullptr) return BIRTHMARK_NO_POINTER;
  if (channels != 1 && channels != 3 && channels != 4) return BIRTHMARK_ELEMENT;
  const std::ptrdiff_t bytes = SizeOf(target->element);
  target->colours = channels == 1 ? BIRTHMARK_GREY : BIRTHMARK_RGB;
  for (int p = 0; p < birthmark::kChannels; ++p) {
    char* const first = static_cast<char*>(data) + p * bytes;
    target->plane[p] = {p < channels ? first : nullptr, row_stride, channels * bytes};
  }
  return BIRTHMARK_OK;
}

birthmark_status birthmark_create(const void* mark, size_t mark_size, const char* kernel,
                                  birthmark_context** context) {
  if (context == nullptr) return BIRTHMARK_NO_POINTER;
  *context = nullptr;
  std::optional<birthmark::MarkFile> parsed;
  if (mark != nullptr) {
    const birthmark::MarkFileStatus status = birthmark::ParseMarkFile(
        {static_cast<const std::uint8_t*>(mark), mark_size}, parsed.emplace());
    if (status != birthmark::MarkFileStatus::kOk) return CodeOf(status);
  }
  const std::optional<birthmark::Isa> isa =
      kernel == nullptr ? birthmark::BestIsa() : birthmark::IsaFromName(kernel);
  if (!isa || !birthmark::IsaIsUsable(*isa)) return BIRTHMARK_KERNEL;
  *context = Make<birthmark_context>(parsed, *isa);
  return *context != nullptr ? BIRTHMARK_OK : BIRTHMARK_NO_MEMORY;
}

void birthmark_destroy(birthmark_context* context) { Destroy(context); }

const char* birthmark_kernel(const birthmark_context* context) {
  return context != nullptr ? birthmark::IsaName(context->embedder.isa()).data() : "";
}

birthmark_status birthmark_embed(birthmark_context* context, const birthmark_source* source,
                                 const birthmark_target* target, const birthmark_window* window) {
  if (context == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark::Source from;
  birthmark::Target to;
  if (const birthmark_status status = Read(source, from); status != BIRTHMARK_OK) return status;
  if (const birthmark_status status = Read(target, to); status != BIRTHMARK_OK) return status;
  birthmark::Window part = {0, from.height, 0, from.width};
  if (window != nullptr) {
    part = {window->first_row, window->last_row, window->first_column, window->last_column};
  }
  return CodeOf(context->embedder.Embed(from, to, part));
}

birthmark_status birthmark_statistics(birthmark_context* context, const birthmark_source* source,
                                      int64_t sums[BIRTHMARK_STATISTICS]) {
  if (context == nullptr || sums == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark::Source from;
  if (const birthmark_status status = Read(source, from); status != BIRTHMARK_OK) return status;
  return CodeOf(context->embedder.AddStatistics(from, sums));
}

birthmark_status birthmark_stream_create(birthmark_context* context, int32_t width, int32_t alpha,
                                         birthmark_stream** stream) {
  if (stream == nullptr) return BIRTHMARK_NO_POINTER;
  *stream = nullptr;
  if (context == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark_stream* const made = Make<birthmark_stream>(context->embedder, width, alpha != 0);
  if (made == nullptr) return BIRTHMARK_NO_MEMORY;
  const Status status = made->rows.status();
  if (status != Status::kOk) {
    Destroy(made);
    return CodeOf(status);
  }
  *stream = made;
  return BIRTHMARK_OK;
}

void birthmark_stream_destroy(birthmark_stream* stream) { Destroy(stream); }

int32_t birthmark_stream_room(const birthmark_stream* stream) {
  return stream != nullptr ? stream->rows.room() : 0;
}
int32_t birthmark_stream_ready(const birthmark_stream* stream) {
  return stream != nullptr ? stream->rows.ready() : 0;
}

birthmark_status birthmark_stream_push(birthmark_stream* stream, const birthmark_source* rows) {
  if (stream == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark::Source from;
  if (const birthmark_status status = Read(rows, from); status != BIRTHMARK_OK) return status;
  return CodeOf(stream->rows.Push(from));
}

birthmark_status birthmark_stream_end(birthmark_stream* stream) {
  if (stream == nullptr) return BIRTHMARK_NO_POINTER;
  stream->rows.End();
  return BIRTHMARK_OK;
}

birthmark_status birthmark_stream_pull(birthmark_stream* stream, const birthmark_target* target,
                                       int32_t count) {
  if (stream == nullptr) return BIRTHMARK_NO_POINTER;
  birthmark::Target to;
  if (const birthmark_status status = Read(target, to); status != BIRTHMARK_OK) return status;
  return CodeOf(stream->rows.Pull(to, count));
}

}  // extern "C"
