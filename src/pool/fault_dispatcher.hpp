// The one handler of SIGSEGV in a process that uses holdfast: whoever protects pool pages and wants
// to know of accesses to them (the crash harness's tracer, `attach`) subscribes here.
//
// A fault that no subscriber takes goes on to whatever handled SIGSEGV before the first
// subscription; that is, ends the process as it would have.
//
// Thread safety: subscribe and unsubscribe from one thread at a time; handlers run on the thread
// that faulted, in a signal handler: they may call async-signal-safe functions only.
#pragma once

#include <csignal>

namespace holdfast::pool {

class FaultDispatcher {
  public:
    // Returns whether the fault was the subscriber's and the instruction may be tried again.
    using Handler = bool (*)(siginfo_t& info, void* context);

    static void subscribe(Handler handler);
    static void unsubscribe(Handler handler);
};

}  // namespace holdfast::pool
