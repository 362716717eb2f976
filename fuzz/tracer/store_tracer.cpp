#include "tracer/store_tracer.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <libpmem.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "pool/fault_dispatcher.hpp"
#include "tracer/boundary.hpp"
#include "tracer/instruction.hpp"
#include "tracer/stepping.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uintptr_t kPage = 4096;
constexpr std::size_t kWord = 8;
constexpr std::size_t kMaxStack = 24;
// libpmem copies from this size on with non-temporal stores, unless its flags say otherwise.
constexpr std::size_t kMovntThreshold = 256;

TraceBuffer* buffer = nullptr;
std::chrono::steady_clock::time_point started;

// ---- threads -----------------------------------------------------------------------------------

pid_t thread_id() { return static_cast<pid_t>(syscall(SYS_gettid)); }

constexpr std::size_t kMaxThreads = 256;
std::array<std::atomic<pid_t>, kMaxThreads> threads;  // by their index in the trace

std::uint16_t thread_index() {
    const pid_t self = thread_id();
    for (std::size_t i = 0; i < kMaxThreads; ++i) {
        pid_t known = threads[i].load();
        if (known == self) return static_cast<std::uint16_t>(i);
        if (known == 0 && threads[i].compare_exchange_strong(known, self))
            return static_cast<std::uint16_t>(i);
        if (known == self) return static_cast<std::uint16_t>(i);
    }
    return kMaxThreads - 1;
}

// Held from the beginning of a store to its end, so that events are whole and in one order.
std::atomic<pid_t> owner = 0;
void lock() {
    const pid_t self = thread_id();
    for (pid_t none = 0; !owner.compare_exchange_weak(none, self); none = 0) sched_yield();
}
void unlock() { owner = 0; }

// The other threads, while a page is open. A thread that waits in `lock` or for `release` cannot
// store; one that blocks the signal is let go: it is in a handler, or in libc.
const int kStopSignal = SIGRTMAX - 3;
std::atomic<std::uint32_t> halted = 0;  // how many wait
std::atomic<std::uint32_t> release = 0;
std::atomic<bool> more_than_one_thread = false;

void halt(int) {
    const int saved = errno;
    const std::uint32_t now = release.load();
    ++halted;
    while (release.load() == now)
        syscall(SYS_futex, &release, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
    errno = saved;
}

void halt_others() {
    if (!more_than_one_thread.load()) return;
    halted = 0;
    std::uint32_t told = 0;
    const pid_t self = thread_id();
    const int folder = static_cast<int>(
        syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    alignas(8) std::array<char, 4096> entries;
    for (;;) {
        const long size = syscall(SYS_getdents64, folder, entries.data(), entries.size());
        if (size <= 0) break;
        for (long at = 0; at < size;) {
            const auto* const entry = reinterpret_cast<const dirent64*>(entries.data() + at);
            at += entry->d_reclen;
            const pid_t thread = std::atoi(entry->d_name);
            if (thread > 0 && thread != self &&
                syscall(SYS_tgkill, getpid(), thread, kStopSignal) == 0)
                ++told;
        }
    }
    close(folder);
    // Those that wait in `lock` take the signal too; a thread that is just ending does not.
    for (int patience = 0; halted.load() < told && patience < 200'000; ++patience) sched_yield();
}

void release_others() {
    if (!more_than_one_thread.load()) return;
    ++release;
    syscall(SYS_futex, &release, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// ---- what is recorded --------------------------------------------------------------------------

struct Stack {
    std::array<void*, kMaxStack + 8> frames{};
    std::size_t first = 0, count = 0;

    // From the frame that contains `innermost` (a place in the code) outwards.
    Stack() = default;
    explicit Stack(const void* innermost) {
        count = static_cast<std::size_t>(backtrace(frames.data(), static_cast<int>(frames.size())));
        const auto found = std::find(frames.begin(), frames.begin() + count, innermost);
        if (found == frames.begin() + count) {
            frames[0] = const_cast<void*>(innermost);
            count = 1;
        } else {
            first = static_cast<std::size_t>(found - frames.begin());
            count = std::min(count - first, kMaxStack);
        }
    }
    std::span<const std::uint64_t> addresses() const {
        return {reinterpret_cast<const std::uint64_t*>(frames.data()) + first, count};
    }
};

void record(EventKind kind, std::uint64_t offset, std::size_t size, const void* data,
            std::span<const std::uint64_t> stack) {
    buffer->append({.kind = kind,
                    .thread = thread_index(),
                    .size = static_cast<std::uint32_t>(size),
                    .offset = offset,
                    .stack_depth = static_cast<std::uint32_t>(stack.size())},
                   data, stack);
}

// ---- one store, stepped over -------------------------------------------------------------------

struct Step {
    struct Page {
        std::byte* address = nullptr;
        std::array<std::byte, kPage> before;
    };
    std::array<Page, 4> pages;  // an instruction stores to two at most; scatters to more
    std::size_t page_count = 0;
    const std::byte* place = nullptr;  // that faulted
    const void* instruction = nullptr;
    Stack stack;  // taken where it faulted, before it is stepped over
};
Step step;

bool open_page(const void* address) {
    std::byte* const page = start_of(address, kPage);
    for (std::size_t i = 0; i < step.page_count; ++i)
        if (step.pages[i].address == page) return true;
    if (step.page_count == step.pages.size()) return false;
    Step::Page& open = step.pages[step.page_count++];
    open.address = page;
    std::memcpy(open.before.data(), page, kPage);
    return raw_mprotect(page, kPage, PROT_READ | PROT_WRITE) == 0;
}

bool on_fault(siginfo_t& info, void* context) {
    const PoolMapping* const mapping = WatchedPool::find(info.si_addr);
    if (mapping == nullptr || buffer == nullptr) return false;
    if (owner.load() == thread_id()) return open_page(info.si_addr);  // this step's next page
    lock();
    halt_others();
    step.page_count = 0;
    step.place = static_cast<const std::byte*>(info.si_addr);
    step.instruction = instruction_of(context);
    step.stack = Stack(step.instruction);
    if (!open_page(info.si_addr)) return false;
    set_single_step(context, true);
    return true;
}

// The store has happened: record what it changed, by whole words, as one event.
void record_step() {
    const Stack& stack = step.stack;
    const MemoryAccess access = decode(step.instruction);
    if (access.is_locked) record(EventKind::fence, 0, 0, nullptr, stack.addresses());
    const EventKind kind =
        access.is_non_temporal ? EventKind::store_non_temporal : EventKind::store;
    bool changed = false;
    for (std::size_t i = 0; i < step.page_count; ++i) {
        const Step::Page& page = step.pages[i];
        std::size_t first = kPage, end = 0;
        for (std::size_t at = 0; at < kPage; at += kWord)
            if (std::memcmp(page.address + at, page.before.data() + at, kWord) != 0) {
                first = std::min(first, at);
                end = at + kWord;
            }
        if (end == 0) continue;
        changed = true;
        const std::uint64_t offset = WatchedPool::find(page.address)->offset_of(page.address);
        record(kind, offset + first, end - first, page.address + first, stack.addresses());
    }
    if (changed) return;
    // The same value again: an event nevertheless, so that its flush is not a redundant one.
    const std::byte* const word = start_of(step.place, kWord);
    record(kind, WatchedPool::find(word)->offset_of(word), kWord, word, stack.addresses());
}

void on_trap(int, siginfo_t*, void* context) {
    if (buffer == nullptr || owner.load() != thread_id()) return;
    set_single_step(context, false);
    record_step();
    for (std::size_t i = 0; i < step.page_count; ++i)
        raw_mprotect(step.pages[i].address, kPage, PROT_READ);
    release_others();
    unlock();
}

// ---- the boundary with libpmem -----------------------------------------------------------------

class Recorder final : public BoundaryObserver {
  public:
    bool flush(const void* address, std::size_t size, const void* caller) override {
        const PoolMapping* const mapping = WatchedPool::find(address);
        if (mapping == nullptr) return false;
        lock();
        record(EventKind::flush, mapping->offset_of(address), size, nullptr,
               Stack(caller).addresses());
        unlock();
        return true;
    }

    bool drain(const void* caller) override {
        lock();
        record(EventKind::fence, 0, 0, nullptr, Stack(caller).addresses());
        unlock();
        return true;
    }

    bool copy(void* destination, const void* source, int byte, std::size_t size, unsigned flags,
              const void* caller) override {
        const PoolMapping* const mapping = WatchedPool::find(destination);
        if (mapping == nullptr) return false;
        if (size == 0) return true;
        lock();
        halt_others();
        const Stack stack(caller);
        std::byte* const begin = start_of(destination, kPage);
        const std::size_t pages_size =
            (static_cast<std::size_t>(static_cast<std::byte*>(destination) - begin) + size + kPage -
             1) /
            kPage * kPage;
        raw_mprotect(begin, pages_size, PROT_READ | PROT_WRITE);
        if (source != nullptr)
            std::memmove(destination, source, size);
        else
            std::memset(destination, byte, size);
        raw_mprotect(begin, pages_size, PROT_READ);
        const std::uint64_t offset = mapping->offset_of(destination);
        const bool flushes = (flags & PMEM_F_MEM_NOFLUSH) == 0;
        const bool cached =
            (flags & (PMEM_F_MEM_TEMPORAL | PMEM_F_MEM_WB)) != 0 ||
            ((flags & (PMEM_F_MEM_NONTEMPORAL | PMEM_F_MEM_WC)) == 0 && size < kMovntThreshold);
        if (!flushes || cached) {
            record(EventKind::store, offset, size, destination, stack.addresses());
            if (flushes) record(EventKind::flush, offset, size, nullptr, stack.addresses());
        } else {
            record(EventKind::store_non_temporal, offset, size, destination, stack.addresses());
        }
        release_others();
        if (flushes && (flags & PMEM_F_MEM_NODRAIN) == 0)
            record(EventKind::fence, 0, 0, nullptr, stack.addresses());
        unlock();
        return true;
    }
};
Recorder recorder;

// ---- beginning and end -------------------------------------------------------------------------

struct sigaction previous_trap, previous_stop;

void mapped(const PoolMapping& mapping) {
    buffer->open();
    raw_mprotect(mapping.address, mapping.size_bytes, PROT_READ);
    buffer->head().pool_bytes = std::max(buffer->head().pool_bytes, WatchedPool::largest_end());
}

// The files that return addresses point into, so that another process can name them.
void record_modules() {
    std::ifstream maps("/proc/self/maps");
    std::string line, last;
    while (std::getline(maps, line)) {
        const std::size_t slash = line.find('/');
        if (slash == std::string::npos) continue;
        const std::string path = line.substr(slash);
        unsigned long long start = 0, end = 0, offset = 0;
        if (path == last ||
            std::sscanf(line.c_str(), "%llx-%llx %*s %llx", &start, &end, &offset) != 3)
            continue;
        last = path;
        record(EventKind::module, start - offset, path.size(), path.data(), {});
    }
}

}  // namespace

Result<void> StoreTracer::start(const std::string& path, TraceBuffer& new_buffer) {
    // The unwinder loads and allocates when it is first used, which a handler may not.
    std::array<void*, 4> frames{};
    backtrace(frames.data(), static_cast<int>(frames.size()));

    for (auto& thread : threads) thread = 0;
    buffer = &new_buffer;
    struct sigaction trap{};
    trap.sa_sigaction = on_trap;
    trap.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &trap, &previous_trap);
    struct sigaction stop_action{};
    stop_action.sa_handler = halt;
    stop_action.sa_flags = SA_RESTART;
    sigaction(kStopSignal, &stop_action, &previous_stop);
    pool::FaultDispatcher::subscribe(on_fault);
    if (auto watched = WatchedPool::watch(path, mapped); !watched) {
        stop();
        return watched;
    }
    observe_boundary(&recorder);
    started = std::chrono::steady_clock::now();
    return {};
}

void StoreTracer::stop() {
    if (buffer == nullptr) return;
    const auto spent = std::chrono::steady_clock::now() - started;
    observe_boundary(nullptr);
    // What the program still stores, in the last destructors, must not fault.
    for (const PoolMapping& mapping : WatchedPool::all())
        raw_mprotect(mapping.address, mapping.size_bytes, PROT_READ | PROT_WRITE);
    WatchedPool::unwatch();
    pool::FaultDispatcher::unsubscribe(on_fault);
    record_modules();
    buffer->head().tracing_ns +=
        static_cast<std::uint64_t>(std::chrono::nanoseconds(spent).count());
    buffer->close();
    buffer = nullptr;
    sigaction(SIGTRAP, &previous_trap, nullptr);
    sigaction(kStopSignal, &previous_stop, nullptr);
}

void StoreTracer::begin(std::uint64_t operation) {
    if (buffer == nullptr) return;
    lock();
    record(EventKind::begin, operation, 0, nullptr, {});
    unlock();
}

void StoreTracer::acknowledge(std::uint64_t operation) {
    if (buffer == nullptr) return;
    lock();
    record(EventKind::acknowledge, operation, 0, nullptr, {});
    ++buffer->head().acknowledged;
    unlock();
}

bool StoreTracer::running() { return buffer != nullptr; }

bool StoreTracer::has_seen_pool() { return WatchedPool::largest_end() != 0; }

namespace detail {
void second_thread_starts() { more_than_one_thread = true; }
}  // namespace detail

}  // namespace holdfast::crash

// From the first thread on that a program starts, stores stop the others.
extern "C" __attribute__((visibility("default"))) int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
    using Function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_create"));
    holdfast::crash::detail::second_thread_starts();
    return real(thread, attributes, start, argument);
}
