// Faults that a sanitizer has to stop: `sanitizer_faults NAME` commits one and ends with status 0
// if nobody saw it. A preset that lost its sanitizer, or that goes on after a report, fails here.
#include <climits>
#include <cstdio>
#include <memory>
#include <string_view>
#include <thread>

namespace {

// What the compiler cannot see through, so that the fault reaches the machine code.
template <class T>
T hidden(T value) {
  volatile T place = value;
  return place;
}

int read_past_the_end() {
  const auto values = std::make_unique<int[]>(4);
  return values[hidden(4U)];
}

int read_after_free() {
  auto value = std::make_unique<int>(1);
  const int* kept = hidden(value.get());
  value.reset();
  return *kept;
}

int leak() {
  return *hidden(new int(1));  // NOLINT: the leak is the point
}

int signed_overflow() { return hidden(INT_MAX) + 1; }

int race() {
  int count = 0;
  std::jthread other([&] { ++count; });
  ++count;
  other.join();
  return count;
}

struct Fault {
  std::string_view name;
  int (*commit)();
};
constexpr Fault kFaults[] = {{"ReadPastTheEnd", read_past_the_end},
                             {"ReadAfterFree", read_after_free},
                             {"Leak", leak},
                             {"SignedOverflow", signed_overflow},
                             {"Race", race}};

}  // namespace

int main(int argc, char** argv) {
  for (const Fault& fault : kFaults) {
    if (argc == 2 && fault.name == argv[1]) {
      std::printf("%s: %d, unseen\n", argv[1], fault.commit());
    }
  }
  return 0;  // for an unknown name, too: the tests expect a report
}
