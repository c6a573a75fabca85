# Installs the build tree, then configures, builds and runs tests/consumer against it:
#   cmake -DBUILD=<build tree> -DROOT=<source tree> -P tests/consumer_test.cmake
cmake_minimum_required(VERSION 3.25)

function(must)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "consumer_test: ${command}\n${text}")
  endif()
endfunction()

set(work ${BUILD}/consumer)
file(REMOVE_RECURSE ${work})
must(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/prefix)
must(${CMAKE_COMMAND} -S ${ROOT}/tests/consumer -B ${work}/build -DCMAKE_PREFIX_PATH=${work}/prefix
     -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=${SANITIZE}")
must(${CMAKE_COMMAND} --build ${work}/build)
must(${work}/build/consumer ${ROOT}/apps/sample/tau)
execute_process(COMMAND ${work}/build/consumer /nowhere RESULT_VARIABLE code ERROR_QUIET OUTPUT_QUIET)
if(NOT code EQUAL 66)  # the documented code of a missing input
  message(FATAL_ERROR "consumer_test: expected exit code 66, got ${code}")
endif()
