# sanitizer_test.cmake with stand-ins for the GPU and the tool: a finding must fail it, no GPU must skip it.
#   cmake -DSCRIPT=<sanitizer_test.cmake> -P sanitizer_self_test.cmake
cmake_minimum_required(VERSION 3.25)

find_program(TRUE true REQUIRED)
find_program(FALSE false REQUIRED)
string(RANDOM LENGTH 8 name)
set(no_gpu ${CMAKE_CURRENT_BINARY_DIR}/no_gpu_${name})
file(WRITE ${no_gpu} "#!/bin/sh\necho 'skipped: no CUDA device'\nexit 77\n")
file(CHMOD ${no_gpu} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)

# probe | tool | whether it must fail | what it must say
foreach(row "${TRUE}|${TRUE}|0|clean" "${TRUE}|${FALSE}|1|found faults in a b" "${no_gpu}|${FALSE}|0|skipped" "${FALSE}|${TRUE}|1|ended with 1")
  string(REPLACE "|" ";" row "${row}")
  list(GET row 0 probe)
  list(GET row 1 tool)
  list(GET row 2 must_fail)
  list(GET row 3 words)
  execute_process(COMMAND ${CMAKE_COMMAND} -DTOOL=memcheck -DPROBE=${probe} -DSANITIZER=${tool} "-DPROGRAMS=a;b" -P ${SCRIPT}
                  RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if((must_fail AND code EQUAL 0) OR (NOT must_fail AND NOT code EQUAL 0) OR NOT text MATCHES "${words}")
    message(SEND_ERROR "sanitizer_self_test: probe ${probe}, tool ${tool}: expected '${words}', got ${code}:\n${text}")
  endif()
endforeach()
file(REMOVE ${no_gpu})
