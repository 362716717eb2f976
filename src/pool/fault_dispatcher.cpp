#include "pool/fault_dispatcher.hpp"

#include <array>
#include <atomic>
#include <cassert>

namespace holdfast::pool {
namespace {

constexpr std::size_t kMaxHandlers = 4;
std::array<std::atomic<FaultDispatcher::Handler>, kMaxHandlers> handlers;
struct sigaction previous;
bool installed = false;

void dispatch(int signal, siginfo_t* info, void* context) {
    for (const auto& slot : handlers) {
        const FaultDispatcher::Handler handler = slot.load(std::memory_order_acquire);
        if (handler != nullptr && handler(*info, context)) return;
    }
    if ((previous.sa_flags & SA_SIGINFO) != 0) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal);
    } else {
        // The instruction faults again, and the default action ends the process with a core. What
        // somebody sent would not come again.
        std::signal(signal, SIG_DFL);
        if (info->si_code <= 0) raise(signal);
    }
}

}  // namespace

void FaultDispatcher::subscribe(Handler handler) {
    for (auto& slot : handlers) {
        Handler none = nullptr;
        if (!slot.compare_exchange_strong(none, handler)) continue;
        if (installed) return;
        struct sigaction action{};
        action.sa_sigaction = dispatch;
        // A handler may itself touch a protected page (while one store is stepped over another
        // page), so the signal stays unblocked in it.
        action.sa_flags = SA_SIGINFO | SA_NODEFER;
        sigemptyset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &previous);
        installed = true;
        return;
    }
    assert(false && "more subscribers to faults than there are places");
}

void FaultDispatcher::unsubscribe(Handler handler) {
    for (auto& slot : handlers) {
        Handler expected = handler;
        slot.compare_exchange_strong(expected, nullptr);
    }
    for (const auto& slot : handlers)
        if (slot.load() != nullptr) return;
    if (installed) sigaction(SIGSEGV, &previous, nullptr);
    installed = false;
}

}  // namespace holdfast::pool
