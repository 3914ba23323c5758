set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(ROCMFORGE_SANITIZE "thread" CACHE STRING "")
# Code objects are the same whatever the host's code is compiled with; the ci build makes and checks them.
set(ROCMFORGE_CODE_OBJECTS OFF CACHE BOOL "")
