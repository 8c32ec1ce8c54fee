# Cross-compile for 64-bit Arm with Debian's g++-aarch64-linux-gnu; run tests with qemu-user.
#   cmake -B build/cross -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DBIRTHMARK_TESTS=ON
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
find_program(BIRTHMARK_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(BIRTHMARK_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${BIRTHMARK_QEMU} -L /usr/aarch64-linux-gnu)
endif()
