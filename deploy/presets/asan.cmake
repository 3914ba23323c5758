set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(ROCMFORGE_SANITIZE "address,undefined" CACHE STRING "")
# No -Werror: with sanitizers gcc sees paths that are not there. The ci preset is the judge of warnings.
