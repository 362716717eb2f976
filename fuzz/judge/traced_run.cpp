#include "judge/traced_run.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "judge/child_process.hpp"
#include "judge/libpmemobj_layout.hpp"
#include "judge/scratch_folder.hpp"
#include "trace/stable_hash.hpp"
#include "tracer/page_watch.hpp"
#include "tracer/store_tracer.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kLargestFilled = std::uint64_t{1} << 30;

class MarkedOperations final : public Operations {
  public:
    void begin() override { StoreTracer::begin(number_); }
    void acknowledge() override { StoreTracer::acknowledge(number_++); }

  private:
    std::uint64_t number_ = 0;
};

std::unexpected<Error> too_much_for_a_trace() {
    return fail(ErrorCode::no_space,
                "the run stores too much for one trace (2 GiB): give it less to do");
}

// The pages of the file, other than these.
Result<void> fill_unwritten(const std::string& path, const std::vector<std::uint64_t>& written,
                            std::uint8_t fill) {
    std::error_code none;
    const std::uint64_t size = std::filesystem::file_size(path, none);
    if (none) return {};  // no pool yet
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string page(kPage, static_cast<char>(fill));
    for (std::uint64_t number = 0; number < size / kPage; ++number) {
        if (std::binary_search(written.begin(), written.end(), number)) continue;
        file.seekp(static_cast<std::streamoff>(number * kPage));
        file.write(page.data(), kPage);
    }
    file.close();
    if (!file) return fail(ErrorCode::io, fmt::format("cannot fill {}", path));
    return {};
}

// In a pool that nobody has open, what libpmemobj has kept in it of the process that had: pointers,
// which mean nothing any more. The traced run stores its own over them, and whether one is by
// chance the same as before, and so a store that changes nothing, would make another trace of it.
Result<void> forget_process_state(const std::string& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    std::string signature(layout::kPoolSignature.size(), '\0');
    file.read(signature.data(), static_cast<std::streamsize>(signature.size()));
    if (!file || signature != layout::kPoolSignature) return {};  // no pool, or another's
    file.seekp(layout::kProcessStateAt);
    const std::string zeros(
        layout::kHeaderBytes + layout::kDescriptorBytes - layout::kProcessStateAt, '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
    file.close();
    if (!file) return fail(ErrorCode::io, fmt::format("cannot write {}", path));
    return {};
}

}  // namespace

std::uint64_t fingerprint_of(const Trace& trace) {
    StableHash hash;
    for (const Event& event : trace.events)
        hash.add(static_cast<std::uint64_t>(event.kind)).add(event.offset).add(event.size);
    return hash.value();
}

Result<Trace> trace_process(const std::string& path, double seconds,
                            const std::function<Result<void>(Operations&)>& work) {
    const std::span<std::byte> memory = shared_memory(kTraceRoomBytes);
    if (memory.empty()) return fail(ErrorCode::io, "no memory for a trace");
    auto done = run_in_child("the traced run", seconds, [&]() -> Result<void> {
        PageWatch::stop();  // the worker's; here stores are traced instead
        TraceBuffer buffer(memory);
        if (auto started = StoreTracer::start(path, buffer); !started) return started;
        MarkedOperations operations;
        auto worked = work(operations);
        StoreTracer::stop();
        if (worked && buffer.full()) return too_much_for_a_trace();
        return worked;
    });
    Result<Trace> trace = fail(ErrorCode::io, "");
    if (done) {
        const auto* const head = reinterpret_cast<const TraceHead*>(memory.data());
        trace = Trace::parse(memory.first(sizeof *head + head->events_bytes), "the trace");
    } else {
        trace = std::unexpected(done.error());
    }
    release_shared_memory(memory);
    return trace;
}

Result<Trace> trace_program(const std::string& trace_path, double seconds,
                            const std::function<Result<void>()>& work) {
    {
        std::ofstream file(trace_path, std::ios::binary);
        const TraceHead head;
        file.write(reinterpret_cast<const char*>(&head), sizeof head);
        file.close();
        if (!file || truncate(trace_path.c_str(), kTraceRoomBytes) != 0)
            return fail(ErrorCode::io, fmt::format("cannot make the trace file {}", trace_path));
    }
    if (auto done = run_in_child("the run", seconds, work); !done)
        return std::unexpected(done.error());
    auto trace = Trace::load(trace_path);
    if (!trace) return trace;
    if (trace->full) return too_much_for_a_trace();
    if (!trace->events.empty() && !trace->complete)
        return fail(ErrorCode::io, "the program that maps the pool did not end in order");
    if (trace->count(EventKind::begin) == 0 && !trace->events.empty()) {
        const Event &first = trace->events.front(), &last = trace->events.back();
        const auto mark = [](EventKind kind, const Event& beside) {
            Event event;
            event.kind = kind;
            event.thread = beside.thread;
            event.process = beside.process;
            return event;
        };
        Event begin = mark(EventKind::begin, first), end = mark(EventKind::acknowledge, last);
        trace->events.insert(trace->events.begin(), std::move(begin));
        trace->events.push_back(std::move(end));
    }
    return trace;
}

Result<TracedRun> trace_run(Subject& subject, double seconds, std::optional<std::uint8_t> fill) {
    const ScratchFolder folder;
    if (folder.path().empty())
        return fail(ErrorCode::io, "cannot make a folder in /dev/shm for the subject's pool");
    const std::string path = folder.path() + "/pool";
    auto set_up = run_in_child("the set-up", seconds, [&]() -> Result<void> {
        // What another program writes cannot be seen.
        if (!fill || subject.is_other_program()) return subject.set_up(path);
        if (auto watched = PageWatch::start(path, kLargestFilled); !watched) return watched;
        PageWatch::begin_run({});
        auto done = subject.set_up(path);
        const std::vector<std::uint64_t> written = PageWatch::written();
        PageWatch::stop();
        if (done) done = fill_unwritten(path, written, *fill);
        return done;
    });
    if (!set_up) return std::unexpected(set_up.error());
    if (auto done = forget_process_state(path); !done) return std::unexpected(done.error());
    // If it made no file, the run makes one.
    std::error_code ignored;
    Result<std::vector<std::byte>> image{};
    if (std::filesystem::exists(path, ignored)) image = read_file(path);
    if (!image) return std::unexpected(image.error());
    constexpr std::string_view kPoolset = "PMEMPOOLSET";
    if (image->size() >= kPoolset.size() &&
        std::memcmp(image->data(), kPoolset.data(), kPoolset.size()) == 0)
        return fail(ErrorCode::unsupported,
                    fmt::format("the set-up of {} makes a poolset, and stores to several files are "
                                "not traced: let it make a pool of one file",
                                subject.name()));
    const std::string trace_path = folder.path() + "/trace";
    auto trace = subject.is_other_program()
                     ? trace_program(trace_path, seconds,
                                     [&] { return subject.run_traced(path, trace_path); })
                     : trace_process(path, seconds, [&](Operations& operations) {
                           return subject.run(path, operations);
                       });
    if (!trace) return std::unexpected(trace.error());
    if (trace->stores() == 0)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("the run of {} stored nothing to its pool: does it map the file "
                        "shared, and persist through {}?",
                        subject.name(),
                        subject.is_other_program() ? "a dynamically linked libpmem" : "libpmem"));
    image->resize(std::max<std::size_t>(image->size(), trace->pool_bytes));
    trace->pool_bytes = image->size();
    const std::uint64_t fingerprint = fingerprint_of(*trace);
    return TracedRun{std::move(*image), std::move(*trace), fingerprint};
}

}  // namespace holdfast::crash
