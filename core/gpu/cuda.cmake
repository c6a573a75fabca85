# Enables CUDA late, so that a machine without nvcc configures. Sets TESSERA_HAVE_CUDA.
set(TESSERA_HAVE_CUDA OFF)
if(NOT TESSERA_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(TESSERA_HAVE_CUDA ON)
  elseif(TESSERA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TESSERA_CUDA=ON, but no CUDA compiler was found; install nvcc or set CMAKE_CUDA_COMPILER")
  endif()
endif()
# CMake 3.25.1 does not know CUDA20: the standard is passed by hand and CUDA_STANDARD stays unset.
target_compile_options(tessera_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-lineinfo;-ftz=true;-fmad=false;--expt-relaxed-constexpr>")
