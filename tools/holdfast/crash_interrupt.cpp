#include "crash_interrupt.hpp"

#include <holdfast/crash.hpp>

#include <csignal>

namespace holdfast::tool {
namespace {

volatile std::sig_atomic_t received = 0;

void on_signal(int signal_number) {
    received = signal_number;
    crash::interrupt();
}

}  // namespace

void end_campaigns_on_signals() {
    struct sigaction action{};
    action.sa_handler = on_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int signal_number : {SIGINT, SIGTERM}) sigaction(signal_number, &action, nullptr);
}

int interrupting_signal() { return received; }

}  // namespace holdfast::tool
