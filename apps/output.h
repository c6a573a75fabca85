// Where the words of the program go: results to standard output or to what -o names, the rest to
// the error stream.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace tessera::apps {

/// Writes a result to standard output. Throws Error(io) with the errno text when that is full,
/// closed or a pipe without a reader.
void write_out(std::string_view text);

/// write_out() of a formatted text.
template <class... T>
void print_out(fmt::format_string<T...> format, T&&... values) {
  write_out(fmt::vformat(format, fmt::make_format_args(values...)));
}

/// Writes progress, a note or an error to the error stream. It never throws: a log that is full or
/// whose reader has gone must not end a training.
void write_err(std::string_view text);

/// write_err() of a formatted text.
template <class... T>
void print_err(fmt::format_string<T...> format, T&&... values) {
  write_err(fmt::vformat(format, fmt::make_format_args(values...)));
}

/// Writes a whole result to the place that -o names: "" and "-" are standard output; a device, a
/// pipe and a descriptor of this process (/dev/stdout, /dev/fd/3) are written to; a file appears
/// under its name when it is complete and on disk. Throws as check_output() and Error(io).
void write_result(const std::string& destination, std::string_view text);

/// Refuses a destination that write_result() could not write to, before the work that makes the
/// result: a folder is Error(usage), a missing folder of the file Error(missing), a place that may
/// not be written Error(io).
void check_output(const std::string& destination);

/// To be called first: a standard descriptor that is closed is given to a file that cannot be
/// used, so that no data file gets its number; a pipe without a reader becomes an error of the
/// write instead of a signal.
void guard_standard_streams();

/// To be called last: flushes and closes standard output. Returns `code`, or, where that was 0 and
/// bytes were lost, says so and returns the exit code of Error(io).
int close_standard_output(int code);

}  // namespace tessera::apps
