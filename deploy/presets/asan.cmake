set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(ROCMFORGE_SANITIZE "address,undefined" CACHE STRING "")
# No -Werror: with sanitizers gcc sees paths that are not there. The ci preset is the judge of warnings.
# Code objects are the same whatever the host's code is compiled with; the ci build makes and checks them.
set(ROCMFORGE_CODE_OBJECTS OFF CACHE BOOL "")
