# The CUDA kernel as a library, the Python module around it, and the bench that needs a card.
# nvcc is called by hand: one file, whose object links like any other.
find_package(CUDAToolkit 12.0 QUIET)
set(lacks)
if(NOT CUDAToolkit_FOUND)
  set(lacks "no CUDA toolkit of version 12 or newer was found")
elseif(NOT TARGET CUDA::cudart_static)
  set(lacks "the CUDA toolkit has no static runtime (libcudart_static.a)")
else()
  # nvcc may be there and not get on with this machine's compiler.
  file(WRITE ${CMAKE_BINARY_DIR}/cuda_probe.cu
    "#include <cuda_fp16.h>\n__global__ void Probe(float* p) { *p = __half2float(__half()); }\n")
  execute_process(
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++20 -c ${CMAKE_BINARY_DIR}/cuda_probe.cu
      -o ${CMAKE_BINARY_DIR}/cuda_probe.o
    RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    set(lacks "nvcc does not compile here:\n${said}")
  endif()
endif()
if(lacks)
  if(BIRTHMARK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "BIRTHMARK_CUDA is ON, but ${lacks}")
  endif()
  message(STATUS "Without CUDA: ${lacks}")
  return()
endif()
message(STATUS "With CUDA ${CUDAToolkit_VERSION}")

# Code for each card from Turing to Blackwell that the toolkit knows; for those between and after
# them, PTX that the driver compiles.
execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} --list-gpu-arch
  OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
set(codes)
foreach(arch IN ITEMS 75 80 86 89 90 100 120)
  if(known MATCHES "compute_${arch}\n")
    list(APPEND codes -gencode arch=compute_${arch},code=sm_${arch})
  endif()
endforeach()
list(APPEND codes -gencode arch=compute_90,code=compute_90)
# The smallest form that every driver fit for the toolkit can unpack.
set(compression -Xfatbin=-compress-all)
if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13.0)
  set(compression --compress-mode=size)
endif()

set(object ${CMAKE_BINARY_DIR}/birthmark_cuda.o)
add_custom_command(OUTPUT ${object}
  COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++20 -O3 ${codes} ${compression}
    -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra
    "$<$<BOOL:${BIRTHMARK_WERROR}>:-Werror;all-warnings>"
    -I${CMAKE_CURRENT_SOURCE_DIR}/cpp -MD -MF ${object}.d
    -c ${CMAKE_CURRENT_SOURCE_DIR}/cpp/cuda/launch.cu -o ${object}
  DEPENDS cpp/cuda/launch.cu
  DEPFILE ${object}.d
  COMMENT "Compiling the CUDA kernel for every card"
  COMMAND_EXPAND_LISTS VERBATIM)
set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
add_library(birthmark_cuda STATIC ${object})
set_target_properties(birthmark_cuda PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(birthmark_cuda PUBLIC birthmark_core CUDA::cudart_static)

if(BIRTHMARK_PYTHON)
  pybind11_add_module(_cuda MODULE cpp/bindings/_cuda.cc)
  # The driver's library is looked for at run time, by the runtime in here: no machine needs one to
  # install or import anything.
  target_link_libraries(_cuda PRIVATE birthmark_cuda)
  target_link_options(_cuda PRIVATE LINKER:--exclude-libs,ALL)
  install(TARGETS _cuda LIBRARY DESTINATION birthmark)
endif()

add_executable(bench_cuda EXCLUDE_FROM_ALL bench/bench_cuda.cc)
target_link_libraries(bench_cuda PRIVATE birthmark_cuda)
