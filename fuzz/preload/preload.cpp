// libholdfast-crash-preload.so: the store tracer in somebody else's program, by LD_PRELOAD.
//
//     HOLDFAST_CRASH_POOL    the pool's file; it may be made later
//     HOLDFAST_CRASH_TRACE   the trace file; made if it is not there, otherwise continued
//
// Without both it does nothing. It is loaded into everything that a command starts (the shell,
// too), and of all these processes those leave something in the trace that map the pool. They are
// to do so one after the other: two at the same time would write over each other's events.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "tracer/store_tracer.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {

std::optional<TraceBuffer> trace;
pid_t traced_process = 0;  // children of a traced process are not

[[noreturn]] void give_up(const char* what, const char* file) {
    std::fprintf(stderr, "libholdfast-crash-preload.so: %s %s: %s\n", what, file,
                 std::strerror(errno));
    _exit(125);
}

void begin_tracing() {
    const char* const pool = std::getenv("HOLDFAST_CRASH_POOL");
    const char* const file_name = std::getenv("HOLDFAST_CRASH_TRACE");
    if (pool == nullptr || file_name == nullptr) return;
    const int file = open(file_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat status{};
    if (file < 0 || fstat(file, &status) != 0) give_up("cannot open the trace file", file_name);
    const bool is_new = status.st_size == 0;
    if (is_new && ftruncate(file, kTraceRoomBytes) != 0)
        give_up("cannot make room in the trace file", file_name);
    const auto size = is_new ? kTraceRoomBytes : static_cast<std::uint64_t>(status.st_size);
    void* const at = size < sizeof(TraceHead) ? MAP_FAILED
                                              : raw_mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                                         MAP_SHARED | MAP_NORESERVE, file, 0);
    if (at == MAP_FAILED) give_up("cannot map the trace file", file_name);
    close(file);
    const std::span<std::byte> memory(static_cast<std::byte*>(at), size);
    if (is_new) {
        const TraceHead head;
        std::memcpy(memory.data(), &head, sizeof head);
    }
    trace = TraceBuffer::resumed(memory);
    traced_process = getpid();
    if (auto started = StoreTracer::start(pool, *trace); !started) {
        errno = EINVAL;
        give_up(started.error().message.c_str(), pool);
    }
}

void end_tracing() {
    if (!StoreTracer::running() || getpid() != traced_process) return;
    if (StoreTracer::has_seen_pool()) StoreTracer::stop();
}

__attribute__((constructor)) void on_load() { begin_tracing(); }
__attribute__((destructor)) void on_exit_of_process() { end_tracing(); }

}  // namespace
}  // namespace holdfast::crash

#define HOLDFAST_EXPORT extern "C" __attribute__((visibility("default")))

// Called through holdfast/crash_operations.h.
HOLDFAST_EXPORT void holdfast_crash_operation_begins() {
    using namespace holdfast::crash;
    if (StoreTracer::running()) StoreTracer::begin(trace->head().acknowledged);
}
HOLDFAST_EXPORT void holdfast_crash_operation_acknowledged() {
    using namespace holdfast::crash;
    if (StoreTracer::running()) StoreTracer::acknowledge(trace->head().acknowledged);
}

// A program that ends by one of these runs no destructors.
HOLDFAST_EXPORT void _exit(int status) {
    holdfast::crash::end_tracing();
    for (;;) syscall(SYS_exit_group, status);
}
HOLDFAST_EXPORT void _Exit(int status) noexcept { _exit(status); }
