// The export of a space as a core dump.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "holdfast/image.hpp"
#include "holdfast/inspect.hpp"
#include "image/core_writer.hpp"
#include "space/space_state.hpp"

namespace holdfast {
namespace {

using image::CoreSegment;
using image::CoreWriter;

constexpr std::uint64_t kProgressBytes = std::uint64_t{16} << 20;

// Nobody changes the space while one lives, so that its segments are those that its pages are
// found in.
class NoWriter {
  public:
    static Result<NoWriter> of(const Space& space) {
        if (space.state().writer.lock(true) == space::WriterLock::Outcome::locked)
            return NoWriter(space.shared_state());
        return fail(ErrorCode::busy,
                    fmt::format("space \"{}\" is held by a transaction of this thread; commit or "
                                "abort that one first",
                                space.name()));
    }
    NoWriter(NoWriter&&) = default;
    NoWriter& operator=(NoWriter&&) = delete;
    ~NoWriter() {
        if (space_) space_->writer.unlock();
    }

  private:
    explicit NoWriter(std::shared_ptr<detail::SpaceState> space) : space_(std::move(space)) {}
    std::shared_ptr<detail::SpaceState> space_;
};

class Exporter {
  public:
    Exporter(const Space& space, const ExportOptions& options) : space_(space), options_(options) {}

    Result<ExportReport> run(const std::string& path) {
        auto mappings = space_.maps();
        if (!mappings) return std::unexpected(mappings.error());
        std::vector<CoreSegment> segments;
        std::uint64_t total_bytes = 0;
        for (Mapping& mapping : *mappings) {
            // What is readable by nobody, and no guard, is what failed its checks.
            const bool is_lost =
                (!mapping.protection.readable() && !mapping.guard) || is_out_of_reach(mapping);
            if (is_lost && !options_.salvage) return damaged(mapping.range);
            if (is_lost) lose(mapping.range);
            total_bytes += mapping.range.size_bytes;
            // What a stack may grow into is for nobody yet, as a guard is.
            const Protection protection = mapping.stack_room ? Protection() : mapping.protection;
            segments.push_back({mapping.range, protection, is_lost,
                                is_lost ? std::string() : std::move(mapping.name),
                                mapping.name_offset});
        }
        report_.mapped_bytes = total_bytes;
        auto writer = CoreWriter::create(path, space_.name(), std::move(segments));
        if (!writer) return std::unexpected(writer.error());
        std::uint64_t done_bytes = 0, told_bytes = 0;
        for (std::size_t i = 0; i < writer->segments().size(); ++i) {
            const CoreSegment& segment = writer->segments()[i];
            for (std::uint64_t at = 0; at < segment.range.size_bytes && !segment.is_lost;) {
                auto written =
                    write_run(*writer, i, segment.range.start + at, segment.range.size_bytes - at);
                if (!written) return std::unexpected(written.error());
                at += *written;
                if (!options_.progress || done_bytes + at - told_bytes < kProgressBytes) continue;
                told_bytes = done_bytes + at;
                options_.progress(told_bytes, total_bytes);
            }
            done_bytes += segment.range.size_bytes;
        }
        if (auto done = writer->finish(); !done) return std::unexpected(done.error());
        if (options_.progress) options_.progress(done_bytes, total_bytes);
        join_lost();
        return std::move(report_);
    }

  private:
    static constexpr std::uint64_t kRunBytes = std::uint64_t{1} << 20;

    std::unexpected<Error> damaged(Range range) const {
        return fail(ErrorCode::damaged,
                    fmt::format("{:#x}-{:#x} in space \"{}\" is damaged; export with `--salvage` "
                                "leaves it out, `verify` says more",
                                range.start.bits(), range.end().bits(), space_.name()));
    }
    // A name may say so that somebody has given.
    bool is_out_of_reach(const Mapping& mapping) const {
        if (mapping.name != "[lost]") return false;
        const auto found = space_.translate(mapping.range.start);
        return !found && found.error().is_loss();
    }
    void lose(Range range) { report_.lost.push_back(range); }
    void join_lost() {
        std::sort(report_.lost.begin(), report_.lost.end(),
                  [](const Range& a, const Range& b) { return a.start < b.start; });
        std::vector<Range> joined;
        for (const Range& range : report_.lost) {
            if (!joined.empty() && joined.back().end() == range.start)
                joined.back().size_bytes += range.size_bytes;
            else
                joined.push_back(range);
        }
        report_.lost = std::move(joined);
    }

    static bool is_zero(const std::byte* page) {
        return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageSize - 1) == 0;
    }

    // Writes pages from `start` on whose frames follow one another, or passes over one that is
    // zeros; returns how many bytes of the space that was.
    Result<std::uint64_t> write_run(CoreWriter& writer, std::size_t segment, VirtAddr start,
                                    std::uint64_t limit_bytes) {
        const auto first = space_.frame_view(start);
        if (!first) {
            const FaultKind kind = first.error().kind;
            if (kind == FaultKind::file_backed || kind == FaultKind::swapped)
                return write_absent(writer, segment, start);
            if (!first.error().is_damage()) return absent_bytes(first.error(), start, limit_bytes);
            if (!options_.salvage) return damaged({start, kPageSize});
            lose({start, kPageSize});
            return kPageSize;
        }
        const std::byte* const bytes = first->data();
        std::uint64_t size_bytes = 0;
        while (size_bytes < std::min(limit_bytes, kRunBytes) && !is_zero(bytes + size_bytes)) {
            size_bytes += kPageSize;
            if (size_bytes == limit_bytes) break;
            const auto next = space_.frame_view(start + size_bytes);
            if (!next || next->data() != bytes + size_bytes) break;
        }
        if (size_bytes == 0) return kPageSize;
        report_.written_bytes += size_bytes;
        if (auto done = writer.write(segment, start, {bytes, size_bytes}); !done)
            return std::unexpected(done.error());
        return size_bytes;
    }

    // A page whose bytes are elsewhere, and stay there.
    Result<std::uint64_t> write_absent(CoreWriter& writer, std::size_t segment, VirtAddr start) {
        std::array<std::byte, kPageSize> page;
        const PeekPiece piece{start, page};
        if (peek(space_, {&piece, 1}).fault) {
            if (!options_.salvage) return damaged({start, kPageSize});
            lose({start, kPageSize});
        } else if (!is_zero(page.data())) {
            report_.written_bytes += kPageSize;
            if (auto done = writer.write(segment, start, page); !done)
                return std::unexpected(done.error());
        }
        return kPageSize;
    }

    // What one absent entry spans, from `start` on: a terabyte that was never touched is not gone
    // through page by page.
    static std::uint64_t absent_bytes(const Fault& fault, VirtAddr start,
                                      std::uint64_t limit_bytes) {
        const std::uint64_t span = format::entry_span_bytes(std::max<unsigned>(fault.level, 1));
        return std::min(limit_bytes, span - (start.bits() & (span - 1)));
    }

    const Space& space_;
    const ExportOptions& options_;
    ExportReport report_;
};

}  // namespace

Result<ExportReport> export_core(const Space& space, const std::string& path,
                                 const ExportOptions& options) {
    const auto start = std::chrono::steady_clock::now();
    auto alone = NoWriter::of(space);
    if (!alone) return std::unexpected(alone.error());
    auto report = Exporter(space, options).run(path);
    if (report)
        report->seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
}

}  // namespace holdfast
