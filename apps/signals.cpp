#include "apps/signals.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

#include "core/check.h"

namespace tessera::apps {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void note(int signal) {
  g_stop = 1;
  if (signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);  // the second one ends the process
  }
}

// Calls only what a signal handler may call.
void leave(int) {
  constexpr std::string_view kText =
      "tessera: stopped by a signal; what was trained is stored, the same command goes on\n";
  (void)!::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(75);
}

void install(void (*handler)(int)) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (signal == SIGHUP && before.sa_handler == SIG_IGN) {
      continue;  // nohup asked for that
    }
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace

void stop_by_checkpoint() { install(note); }
void stop_at_once() { install(leave); }
bool stop_requested() { return g_stop != 0; }

}  // namespace tessera::apps
