# Install and export: find_package(Tessera) then tessera::core, tessera::kernels, ... (tests/consumer shows it).
include(CMakePackageConfigHelpers)
set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Tessera)

# Headers that the file sets leave out, since they do not compile alone.
foreach(layer core kernels)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${layer}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/${layer}
          FILES_MATCHING PATTERN "*-inl.h" PATTERN "*.cuh")
endforeach()
install(EXPORT TesseraTargets NAMESPACE tessera:: DESTINATION ${_package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/core/TesseraConfig.cmake.in
  ${PROJECT_BINARY_DIR}/TesseraConfig.cmake INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/TesseraConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/TesseraConfig.cmake ${PROJECT_BINARY_DIR}/TesseraConfigVersion.cmake
        DESTINATION ${_package_dir})
