// The import of a live process: stop it, copy it, let it go, commit.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <utility>

#include "image/image_writer.hpp"
#include "image/process_maps.hpp"
#include "image/process_memory.hpp"
#include "image/stopped_process.hpp"

namespace holdfast {
namespace {

using image::ContentMap;
using image::ImageWriter;
using image::Part;
using image::ProcessMapping;
using image::ProcessMemory;
using image::StoppedProcess;

// So much is read at a time: little enough to stay in a cache between the read, the search for
// zeros and the copy into frames, and enough to make the cost of mapping a range vanish.
constexpr std::size_t kChunkBytes = std::size_t{2} << 20;

std::unexpected<Error> ended(pid_t process) {
    return fail(ErrorCode::not_found,
                fmt::format("process {} ended while it was imported; nothing was stored", process));
}

bool is_imported(const ProcessMapping& mapping) {
    // [vsyscall] lies in the supervisor half, and is the kernel's and not the process's.
    return mapping.protection.readable() && mapping.range.start.bits() >> 63 == 0;
}

Result<void> copy_pages(ImageWriter& writer, const ProcessMemory& memory, const Part& part,
                        Range range, std::span<std::byte> buffer) {
    while (range.size_bytes != 0) {
        const auto pages = buffer.first(std::min<std::uint64_t>(buffer.size(), range.size_bytes));
        const auto size_bytes = memory.read(range.start, pages);
        if (!size_bytes) return std::unexpected(size_bytes.error());
        std::uint64_t step = *size_bytes;
        if (step != 0) {
            if (auto done = writer.put(part, range.start, pages.first(step)); !done) return done;
        } else {
            step = kPageSize;
            writer.skip({range.start, step});
        }
        range = {range.start + step, range.size_bytes - step};
    }
    return {};
}

Result<void> copy_mapping(ImageWriter& writer, const ProcessMemory& memory, pid_t thread,
                          const ProcessMapping& mapping, std::span<std::byte> buffer) {
    const Part part{mapping.range, mapping.protection, mapping.name, mapping.file_offset};
    ContentMap content(thread, mapping);
    VirtAddr at = mapping.range.start;
    while (at < content.readable_end()) {
        const Range pages =
            content.next(at, content.readable_end()).value_or(Range{content.readable_end(), 0});
        if (auto done = writer.put_zeros(part, {at, pages.start - at}); !done) return done;
        if (auto done = copy_pages(writer, memory, part, pages, buffer); !done) return done;
        at = pages.end();
    }
    if (at < mapping.range.end()) writer.skip({at, mapping.range.end() - at});
    return {};
}

Result<void> copy_process(ImageWriter& writer, pid_t process) {
    auto stopped = StoppedProcess::stop(process);
    if (!stopped) return std::unexpected(std::move(stopped.error()));
    auto memory = ProcessMemory::open(stopped->thread(), process);
    if (!memory)
        return stopped->is_still_stopped() ? std::unexpected(memory.error()) : ended(process);
    auto mappings = memory->mappings();
    if (!mappings)
        return stopped->is_still_stopped() ? std::unexpected(mappings.error()) : ended(process);
    std::erase_if(*mappings, [](const ProcessMapping& mapping) { return !is_imported(mapping); });
    if (mappings->empty()) return ended(process);

    std::uint64_t total_bytes = 0;
    for (const ProcessMapping& mapping : *mappings) total_bytes += mapping.range.size_bytes;
    writer.expect(total_bytes);
    std::vector<std::byte> buffer(kChunkBytes);
    for (const ProcessMapping& mapping : *mappings)
        if (auto done = copy_mapping(writer, *memory, stopped->thread(), mapping, buffer); !done)
            return done;
    if (auto done = writer.finish(); !done) return done;
    // A process that was killed meanwhile may have changed its memory on the way out.
    if (!stopped->is_still_stopped()) return ended(process);
    return {};
}

Result<ImportReport> import_stopped(Store& store, const std::string& space_name, pid_t process,
                                    const ImportOptions& options) {
    auto writer = ImageWriter::begin(store, space_name, options);
    if (!writer) return std::unexpected(std::move(writer.error()));
    // The process goes on before the commit, which no longer needs it.
    if (auto done = copy_process(*writer, process); !done)
        return std::unexpected(std::move(done.error()));
    return writer->commit();
}

}  // namespace

Result<ImportReport> import_process(Store& store, const std::string& space_name, pid_t pid,
                                    const ImportOptions& options) {
    if (pid <= 0)
        return fail(ErrorCode::invalid_argument, fmt::format("{} cannot be a process id", pid));
    auto status = image::read_status(pid);
    if (!status) return std::unexpected(std::move(status.error()));
    if (status->process == getpid())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("process {} is the importing process itself, which cannot be "
                                "stopped while it copies; import it from another one",
                                pid));
    // A thread of its own, because tracing ends with the thread that began it
    // (stopped_process.hpp).
    return std::async(std::launch::async,
                      [&, process = status->process] {
                          return image::timed(
                              [&] { return import_stopped(store, space_name, process, options); });
                      })
        .get();
}

}  // namespace holdfast
