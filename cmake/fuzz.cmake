# Fuzz targets: tests/fuzz/fuzz_<name>.cc, each with a corpus in tests/fuzz/corpus/<name>. Clang builds
# fuzzers (fuzz_<name>) under the address and undefined-behaviour sanitizers. Any compiler builds
# replay_<name>, which runs the corpus once, as a test.
option(BIRTHMARK_FUZZ "Build the fuzzers; needs clang" OFF)
if(BIRTHMARK_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "BIRTHMARK_FUZZ needs clang: CXX=clang++")
endif()

foreach(name mark_file embed stream)
  add_executable(replay_${name} tests/fuzz/fuzz_${name}.cc tests/fuzz/replay.cc)
  target_include_directories(replay_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(replay_${name} PRIVATE birthmark_core birthmark_static)
  add_test(NAME replay_${name}
    COMMAND replay_${name} ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(BIRTHMARK_FUZZ)
    add_executable(fuzz_${name} tests/fuzz/fuzz_${name}.cc)
    target_include_directories(fuzz_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(fuzz_${name} PRIVATE birthmark_core birthmark_static)
    target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  endif()
endforeach()

# The fuzzer watches the ways through the core. Those through the kernels are all taken anyway, and
# watching them costs most of the speed. So does asking of every pointer there whether its sum wraps:
# three quarters of the plain kernel's time, and what such a pointer then touches is seen all the same.
# `make sanitize` asks.
if(BIRTHMARK_FUZZ)
  get_property(targets DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} PROPERTY BUILDSYSTEM_TARGETS)
  list(FILTER targets INCLUDE REGEX "^birthmark_kernel_")
  foreach(kernel IN LISTS targets)
    target_compile_options(${kernel} PRIVATE -fno-sanitize=pointer-overflow)
  endforeach()
  target_compile_options(birthmark_core PRIVATE -fsanitize=fuzzer-no-link)
  target_compile_options(birthmark_static PRIVATE -fsanitize=fuzzer-no-link)
  if(NOT BIRTHMARK_SANITIZE)
    message(WARNING "BIRTHMARK_FUZZ without BIRTHMARK_SANITIZE=address,undefined finds less")
  endif()
endif()
