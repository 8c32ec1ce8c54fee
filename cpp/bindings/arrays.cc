#include "bindings/arrays.h"

#include <algorithm>
#include <new>

namespace py = pybind11;

namespace birthmark::python {
namespace {

// In memory, by the DLPack protocol (its names, its order, its types).
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id, ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;  // strides in elements; null: as C has them
  std::uint64_t byte_offset;
};

std::optional<Element> ElementOf(const py::dtype& dtype) {
  const char order = dtype.byteorder();
  if (order != '=' && order != '|') return std::nullopt;
  switch (dtype.kind()) {
    case 'f':
      if (dtype.itemsize() == 4) return Element::kFloat32;
      if (dtype.itemsize() == 2) return Element::kFloat16;
      break;
    case 'u':
      if (dtype.itemsize() == 1) return Element::kUint8;
      if (dtype.itemsize() == 2) return Element::kUint10;
      break;
    case 'i':
      if (dtype.itemsize() == 1) return Element::kInt8;
      break;
    case 'V':  // what the package ml_dtypes defines
      if (dtype.itemsize() == 2 && py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") {
        return Element::kBfloat16;
      }
      break;
  }
  return std::nullopt;
}

std::optional<Element> ElementOf(const DlTensor& tensor) {
  constexpr int kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4;
  if (tensor.lanes != 1) return std::nullopt;
  const auto is = [&](int code, int bits) { return tensor.code == code && tensor.bits == bits; };
  if (is(kFloat, 32)) return Element::kFloat32;
  if (is(kFloat, 16)) return Element::kFloat16;
  if (is(kBfloat, 16)) return Element::kBfloat16;
  if (is(kUint, 8)) return Element::kUint8;
  if (is(kUint, 16)) return Element::kUint10;
  if (is(kInt, 8)) return Element::kInt8;
  return std::nullopt;
}

// What a method of a foreign object says; its own exceptions become one line of ours.
template <class... Args>
py::object Ask(const py::object& object, const char* method, const std::string& what) {
  try {
    return object.attr(method)();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    std::string line = py::str(error.value()).cast<std::string>();
    Raise("InvalidArray", what + " cannot be read as a tensor: " + line.substr(0, line.find('\n')));
  }
}

View ViewOfTensor(const py::object& object, const std::string& what) {
  constexpr int kCpu = 1, kCudaHost = 3, kRocmHost = 11, kManaged = 13;
  const py::tuple device = Ask(object, "__dlpack_device__", what);
  const int kind = device[0].cast<int>();
  if (kind != kCpu && kind != kCudaHost && kind != kRocmHost && kind != kManaged) {
    Raise("InvalidArray", what + " is in the memory of another device; move it to the processor's");
  }
  View view;
  // Not taken out of its capsule, which therefore frees it in the end.
  view.owner = Ask(object, "__dlpack__", what);
  const void* const pointer = PyCapsule_GetPointer(view.owner.ptr(), "dltensor");
  if (pointer == nullptr) throw py::error_already_set();
  const DlTensor& tensor = *static_cast<const DlTensor*>(pointer);
  const std::optional<Element> element = ElementOf(tensor);
  if (!element) {
    RaiseElement(what, "DLPack type " + std::to_string(tensor.code) + " of " +
                           std::to_string(tensor.bits) + " bits");
  }
  view.element = *element;
  view.data = static_cast<std::uint8_t*>(tensor.data) + tensor.byte_offset;
  view.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  view.strides.resize(view.shape.size());
  const py::ssize_t bytes = tensor.bits / 8;
  py::ssize_t packed = bytes;
  for (int axis = view.axes() - 1; axis >= 0; --axis) {
    const auto at = static_cast<std::size_t>(axis);
    view.strides[at] = tensor.strides != nullptr ? tensor.strides[at] * bytes : packed;
    packed *= view.shape[at];
  }
  view.writeable = true;
  return view;
}

}  // namespace

void RaiseUnlessOk(Status status) {
  if (status == Status::kOk) return;
  if (status == Status::kNoMemory) throw std::bad_alloc();
  Raise("InvalidArray", Describe(status));
}

std::string NameOfType(const py::handle& object) {
  return py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>();
}

py::array CheckedArray(const py::object& object, const char* what) {
  if (!py::isinstance<py::array>(object)) {
    Raise("InvalidArray", std::string(what) + " must be a numpy array, not " + NameOfType(object));
  }
  return py::reinterpret_borrow<py::array>(object);
}

std::string CheckedBytes(const py::object& object, const char* error, const char* what) {
  if (!py::isinstance<py::bytes>(object)) {
    Raise(error, std::string(what) + " must be bytes, not " + NameOfType(object));
  }
  return py::reinterpret_borrow<py::bytes>(object);
}

std::string Join(const std::vector<py::ssize_t>& shape) {
  std::string text;
  for (py::ssize_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "[" + text + "]";
}

[[noreturn]] void RaiseElement(const std::string& what, const std::string& found) {
  Raise("InvalidArray",
        what + " holds float32, float16, bfloat16, uint8 or int8 values, not " + found);
}

View ViewOfArray(const py::array& array, const std::string& what) {
  View view;
  const std::optional<Element> element = ElementOf(array.dtype());
  if (!element) RaiseElement(what, py::str(array.dtype()).cast<std::string>());
  view.element = *element;
  view.data = const_cast<std::uint8_t*>(static_cast<const std::uint8_t*>(array.data()));
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.strides.assign(array.strides(), array.strides() + array.ndim());
  view.writeable = array.writeable();
  view.owner = array;
  return view;
}

std::optional<Element> ElementNamed(const std::string& name) {
  if (name == "float32") return Element::kFloat32;
  if (name == "float16") return Element::kFloat16;
  if (name == "bfloat16") return Element::kBfloat16;
  if (name == "uint8") return Element::kUint8;
  if (name == "uint16") return Element::kUint10;
  if (name == "int8") return Element::kInt8;
  return std::nullopt;
}

View ViewOf(const py::object& object, const std::string& what) {
  if (py::isinstance<View>(object)) return object.cast<View>();
  if (py::isinstance<py::array>(object)) {
    return ViewOfArray(py::reinterpret_borrow<py::array>(object), what);
  }
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    return ViewOfTensor(object, what);
  }
  Raise("InvalidArray",
        what + " must be a numpy array or a DLPack tensor, not " + NameOfType(object));
}

int CheckedSide(py::ssize_t side) {
  if (side < 1 || side > kMostSide) {
    Raise("InvalidArray",
          "a side of " + std::to_string(side) + " pixels: 1 to 1048576 are allowed");
  }
  return static_cast<int>(side);
}

Extent ExtentOf(const View& view) {
  Extent extent;
  extent.begin = extent.end = reinterpret_cast<std::uintptr_t>(view.data);
  bool fits = !__builtin_add_overflow(extent.end, static_cast<std::uintptr_t>(SizeOf(view.element)),
                                      &extent.end);
  for (std::size_t axis = 0; axis < view.shape.size(); ++axis) {
    fits = fits && Extend(extent, view.strides[axis], std::max<py::ssize_t>(view.shape[axis], 1));
  }
  if (!fits) RaiseUnlessOk(Status::kReach);
  return extent;
}

}  // namespace birthmark::python
