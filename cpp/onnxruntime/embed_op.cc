// The operator ai.birthmark::Embed for onnxruntime: a shared library that a session registers.
//
//   input      image          float32 [n, 3, h, w], RGB
//   attribute  mark           uint8 [bytes], the content of a mark file
//   attributes scale, offset  float32: image * scale + offset is between 0 (black) and 1 (white)
//   output     published      uint8 [n, h, w, 3]
//
// It asks for the API of onnxruntime 1.17, the oldest that has ParallelFor, whatever the headers'
// version is, so that one binary serves every later version. Nothing is linked: onnxruntime hands
// over its functions.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>

#include "contract/mark_file.h"
#include "embed/embedder.h"

namespace {

using birthmark::Embedder;
using birthmark::kMostSide;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using birthmark::Source;
using birthmark::Status;
using birthmark::Target;
using birthmark::Window;

constexpr std::uint32_t kApiVersion = 17;
static_assert(ORT_API_VERSION >= kApiVersion, "headers of onnxruntime 1.17 or newer are needed");

// An error on its way out; the pointer is onnxruntime's to free.
class Failure {
 public:
  explicit Failure(OrtStatus* status) : status_(status) {}
  OrtStatus* status() const { return status_; }

 private:
  OrtStatus* status_;
};

[[noreturn]] void Fail(const OrtApi& api, const std::string& message) {
  throw Failure(
      api.CreateStatus(ORT_INVALID_ARGUMENT, ("ai.birthmark::Embed: " + message).c_str()));
}

void Check(OrtStatus* status) {
  if (status != nullptr) throw Failure(status);
}

// Runs `body` where an exception would otherwise leave this library.
template <typename Body>
OrtStatus* Guarded(const OrtApi& api, const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status();
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

// A tensor's element type and sides.
struct Shape {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::size_t axes = 0;
  std::size_t elements = 0;
  std::int64_t side[4] = {};  // only where axes is 4
};

Shape ShapeOf(const OrtApi& api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  Check(api.GetTensorTypeAndShape(value, &raw));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)>
      info(raw, api.ReleaseTensorTypeAndShapeInfo);
  Shape shape;
  Check(api.GetTensorElementType(raw, &shape.type));
  Check(api.GetDimensionsCount(raw, &shape.axes));
  Check(api.GetTensorShapeElementCount(raw, &shape.elements));
  if (shape.axes == 4) Check(api.GetDimensions(raw, shape.side, 4));
  return shape;
}

MarkFile ReadMark(const OrtApi& api, const OrtKernelInfo* info) {
  OrtAllocator* allocator = nullptr;
  Check(api.GetAllocatorWithDefaultOptions(&allocator));
  OrtValue* raw = nullptr;
  Check(api.KernelInfoGetAttribute_tensor(info, "mark", allocator, &raw));
  const std::unique_ptr<OrtValue, decltype(api.ReleaseValue)> value(raw, api.ReleaseValue);
  const Shape shape = ShapeOf(api, raw);
  if (shape.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) Fail(api, "the mark is not uint8");
  void* data = nullptr;
  Check(api.GetTensorMutableData(raw, &data));
  MarkFile mark;
  const MarkFileStatus status =
      birthmark::ParseMarkFile({static_cast<const std::uint8_t*>(data), shape.elements}, mark);
  if (status != MarkFileStatus::kOk) Fail(api, birthmark::Describe(status));
  return mark;
}

float ReadFloat(const OrtApi& api, const OrtKernelInfo* info, const char* name) {
  float value = 0;
  Check(api.KernelInfoGetAttribute_float(info, name, &value));
  return value;
}

// One node of a model: its mark, and the function table of the onnxruntime that runs it.
class EmbedNode {
 public:
  EmbedNode(const OrtApi& api, const OrtKernelInfo* info)
      : api_(api),
        embedder_(ReadMark(api, info), birthmark::BestIsa()),
        scale_(ReadFloat(api, info, "scale")),
        offset_(ReadFloat(api, info, "offset")) {}

  const OrtApi& api() const { return api_; }

  void Compute(OrtKernelContext* context) {
    const OrtValue* input = nullptr;
    Check(api_.KernelContext_GetInput(context, 0, &input));
    const Shape shape = ShapeOf(api_, input);
    const auto& [n, channels, height, width] = shape.side;
    if (shape.axes != 4 || channels != 3) Fail(api_, "the image is not [n, 3, h, w]");
    if (std::min(height, width) < 1 || std::max(height, width) > kMostSide) {
      Fail(api_, "the image has " + std::to_string(width) + " x " + std::to_string(height) +
                     " pixels: 1 to 1048576 are allowed on a side");
    }
    // The C API has no read-only access before 1.22; nothing is written.
    void* data = nullptr;
    Check(api_.GetTensorMutableData(const_cast<OrtValue*>(input), &data));
    const std::int64_t published[4] = {n, height, width, 3};
    OrtValue* output = nullptr;
    Check(api_.KernelContext_GetOutput(context, 0, published, 4, &output));
    void* out = nullptr;
    Check(api_.GetTensorMutableData(output, &out));

    Source source;
    source.width = static_cast<int>(width);
    source.height = static_cast<int>(height);
    for (int c = 0; c < 3; ++c) {
      source.scale[c] = scale_;
      source.offset[c] = offset_;
    }
    Work work = {&embedder_, static_cast<const float*>(data), static_cast<std::uint8_t*>(out),
                 source, std::clamp(source.height / kStripeRows, 1, kMostStripes)};
    const std::size_t parts = static_cast<std::size_t>(n) * static_cast<std::size_t>(work.stripes);
    // Pictures and their stripes are shared out over the session's own threads.
    if (parts > 1) {
      Check(api_.KernelContext_ParallelFor(context, &Work::Part, parts, 0, &work));
    } else if (parts == 1) {
      Work::Part(&work, 0);
    }
    if (work.status != Status::kOk) Fail(api_, birthmark::Describe(work.status));
  }

 private:
  // How many threads a session has is not told, so a picture is cut into a few stripes, each high
  // enough for the rows around it that are computed twice not to matter.
  static constexpr int kStripeRows = 256, kMostStripes = 8;

  struct Work {
    Embedder* embedder;
    const float* images;
    std::uint8_t* published;
    Source source;  // of any of the pictures: all but where its values are
    int stripes;
    std::atomic<Status> status = Status::kOk;

    static void Part(void* self, std::size_t i) {
      Work& work = *static_cast<Work*>(self);
      Source source = work.source;
      const std::ptrdiff_t pixels = std::ptrdiff_t{source.height} * source.width;
      const std::ptrdiff_t row_bytes = std::ptrdiff_t{3} * source.width;
      const auto picture = static_cast<std::ptrdiff_t>(i) / work.stripes;
      const auto stripe = static_cast<std::int64_t>(i) % work.stripes;
      const Window window = {static_cast<int>(source.height * stripe / work.stripes),
                             static_cast<int>(source.height * (stripe + 1) / work.stripes), 0,
                             source.width};
      const float* const image = work.images + picture * 3 * pixels;
      std::uint8_t* const out =
          work.published + picture * 3 * pixels + window.first_row * row_bytes;
      Target target;
      for (int c = 0; c < 3; ++c) {
        source.channel[c] = {reinterpret_cast<const std::uint8_t*>(image + c * pixels),
                             source.width * std::ptrdiff_t{sizeof(float)}, sizeof(float)};
        target.plane[c] = {out + c, row_bytes, 3};
      }
      if (const Status found = work.embedder->Embed(source, target, window); found != Status::kOk) {
        work.status = found;
      }
    }
  };

  const OrtApi& api_;
  Embedder embedder_;
  float scale_, offset_;
};

OrtCustomOp DescribeOp() {
  OrtCustomOp op = {};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "Embed"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> std::size_t { return 1; };
  op.GetInputType = [](const OrtCustomOp*, std::size_t) {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, std::size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, std::size_t) { return OrtMemTypeDefault; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> std::size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, std::size_t) {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, std::size_t) {
    return INPUT_OUTPUT_REQUIRED;
  };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                         void** node) -> OrtStatus* {
    return Guarded(*api, [&] { *node = std::make_unique<EmbedNode>(*api, info).release(); });
  };
  op.KernelComputeV2 = [](void* node, OrtKernelContext* context) -> OrtStatus* {
    EmbedNode& embed = *static_cast<EmbedNode*>(node);
    return Guarded(embed.api(), [&] { embed.Compute(context); });
  };
  op.KernelDestroy = [](void* node) { delete static_cast<EmbedNode*>(node); };
  return op;
}

// What onnxruntime keeps a pointer to for as long as any session uses it. It takes no ownership,
// so this one, which never changes, lives as long as the library is loaded.
class Domain {
 public:
  explicit Domain(const OrtApi& api) : api_(api), op_(DescribeOp()) {
    Check(api_.CreateCustomOpDomain("ai.birthmark", &domain_));
    if (OrtStatus* status = api_.CustomOpDomain_Add(domain_, &op_); status != nullptr) {
      api_.ReleaseCustomOpDomain(domain_);
      throw Failure(status);
    }
  }
  ~Domain() { api_.ReleaseCustomOpDomain(domain_); }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  OrtCustomOpDomain* get() const { return domain_; }

 private:
  const OrtApi& api_;
  OrtCustomOp op_;
  OrtCustomOpDomain* domain_ = nullptr;
};

}  // namespace

// Called by onnxruntime under this name. A null `api` of an older onnxruntime has no way to say so
// but a null status, so the session then reports an unknown operator or takes the plain body.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* const api = base->GetApi(kApiVersion);
  if (api == nullptr) return nullptr;
  return Guarded(*api, [&] {
    static const Domain domain(*api);
    Check(api->AddCustomOpDomain(options, domain.get()));
  });
}
