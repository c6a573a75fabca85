# Compile options shared by every target, as an INTERFACE target so that none leaks to a consumer.
add_library(tessera_flags INTERFACE)

set(_warnings -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion
    # Options are aggregates set by name; what is left out has its default.
    -Wno-missing-field-initializers)
if(TESSERA_WERROR)
  list(APPEND _warnings -Werror)
endif()
target_compile_options(tessera_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${_warnings}>"
  # Fused multiply-adds are written where they are meant; messages carry no build path.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CXX>:-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=>)

if(TESSERA_SANITIZE)
  target_compile_options(tessera_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TESSERA_SANITIZE}>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>)
  target_link_options(tessera_flags INTERFACE -fsanitize=${TESSERA_SANITIZE})
endif()

# tessera_layer(core SOURCES ... HEADERS ... LINK ...): one static library of the chain
# core <- kernels <- nn <- train, with its headers in a file set that is verified header by header.
function(tessera_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS;LINK;PRIVATE_LINK" ${ARGN})
  add_library(tessera_${name} STATIC ${ARG_SOURCES})
  add_library(tessera::${name} ALIAS tessera_${name})
  set_target_properties(tessera_${name} PROPERTIES EXPORT_NAME ${name} VERIFY_INTERFACE_HEADER_SETS ON)
  target_sources(tessera_${name} PUBLIC
    FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${ARG_HEADERS})
  target_compile_features(tessera_${name} PUBLIC cxx_std_20)
  target_link_libraries(tessera_${name} PUBLIC ${ARG_LINK}
    PRIVATE $<BUILD_INTERFACE:tessera_flags> ${ARG_PRIVATE_LINK})
  install(TARGETS tessera_${name} EXPORT TesseraTargets FILE_SET HEADERS)
endfunction()
