#include "recovery/frame_survey.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <vector>

#include "recovery/parallel.hpp"

namespace holdfast::recovery {

using format::FrameKind;
using format::FrameMetadata;

namespace {

constexpr std::uint64_t kFramesPerPiece = 16384;

struct Found {
    std::vector<Damage> damages;
    std::vector<LeakedRun> leaked;
    std::uint64_t reachable = 0, limbo = 0, building = 0, free = 0;
    std::array<std::uint64_t, 16> by_kind{};
};

void add_leaked(std::vector<LeakedRun>& runs, const LeakedRun& run) {
    if (!runs.empty() && runs.back().continued_by(run))
        runs.back().count += run.count;
    else
        runs.push_back(run);
}

Damage damage(const char* what, FrameNumber frame, const std::string& says, Remedy remedy,
              std::uint64_t number) {
    return {.finding = {what, "", {}, fmt::format("frame {:#x} {}", frame.value(), says)},
            .remedy = remedy,
            .frame = frame,
            .number = number};
}

// A frame whose metadata is one that somebody has written. `end`: of all that it stands for.
std::optional<Damage> look_at(FrameNumber frame, const FrameUses::Use& use,
                              const memory::MetadataWords& words, const std::byte* host,
                              std::optional<FrameNumber> zero_frame, Found& found,
                              FrameNumber& end) {
    const std::uint64_t word0 = pool::load_word(words.word0);
    const std::uint64_t word1 = pool::load_word(words.word1());
    // What a build claims is free as soon as its record is dealt with, and may be anything until
    // then.
    if (use.building) {
        ++found.building;
        if (use.references() == 0) return std::nullopt;
        return damage("I4 account", frame, "is used, and claimed by an unfinished build",
                      Remedy::empty_build_slot, 0);
    }
    if (!FrameMetadata::is_valid(words.home, word0, word1))
        return damage("I5 metadata", frame, "has metadata that fails its checksum",
                      use.references() == 0 ? Remedy::free_frames : Remedy::none, 1);
    const FrameMetadata metadata = FrameMetadata::decode(word0, word1);
    const std::uint64_t frames = format::frames_of(metadata.kind);
    end = frame + frames;
    // Of zeros: nobody counts what leads to it. One that the superblock does not name is left from
    // before its word was damaged, and goes when nothing leads to it.
    if (metadata.kind == FrameKind::data && metadata.is_fixed() &&
        (frame == zero_frame || use.references() != 0)) {
        ++found.reachable;
        ++found.by_kind[static_cast<std::size_t>(metadata.kind)];
        static constexpr std::array<std::byte, kPageSize> kZeros{};
        if (host == nullptr || std::memcmp(host, kZeros.data(), kPageSize) == 0)
            return std::nullopt;
        return damage("I5 metadata", frame, "is to hold zeros, and holds something else",
                      Remedy::clear_frame, 1);
    }
    if (metadata.kind == FrameKind::free) {
        ++found.free;
        if (use.references() == 0) return std::nullopt;
        return damage("I4 account", frame,
                      fmt::format("is free, and used {} times", use.references()), Remedy::none, 0);
    }
    if (use.references() == 0) {
        add_leaked(found.leaked, {frame, 1, metadata.kind, metadata.owner, metadata.index});
        return std::nullopt;
    }
    (use.from_spaces != 0 ? found.reachable : found.limbo) += frames;
    ++found.by_kind[static_cast<std::size_t>(metadata.kind)];
    // What a removed fork has shared with others is in use, and limbo has a reference, too.
    if (use.from_spaces != 0 && use.from_limbo != 0 && metadata.kind != FrameKind::shared_data &&
        metadata.references < 2)
        return damage("I4 account", frame,
                      fmt::format("(kind {}) is in use, and in limbo", name_of(metadata.kind)),
                      Remedy::cut_limbo, 0);
    if (use.references() != metadata.references)
        return damage("I3 reference", frame,
                      fmt::format("(kind {}) has {} references and says {}", name_of(metadata.kind),
                                  use.references(), metadata.references),
                      Remedy::set_references, use.references());
    return std::nullopt;
}

// A frame of a device region: nobody counts what leads to it, and its record never changes.
std::optional<Damage> look_at_device(FrameNumber frame, std::uint64_t at,
                                     const memory::MetadataWords& words) {
    const FrameMetadata right = FrameMetadata::of_device(at);
    if (pool::load_word(words.word0) == right.word0(words.home) &&
        pool::load_word(words.word1()) == right.word1())
        return std::nullopt;
    return damage("I5 metadata", frame, "of a device has metadata that is not a device's",
                  Remedy::remake_metadata, 1);
}

// A part of a huge frame in use, whose record stands for it. A build that is about to make it a
// frame of its own may write to its metadata.
std::optional<Damage> look_at_part(FrameNumber frame, const FrameUses::Use& use,
                                   const memory::MetadataWords& words) {
    if (use.references() != 0)
        return damage("I4 account", frame, "is used, and a part of a huge frame", Remedy::none, 0);
    if (use.building) return std::nullopt;
    const std::uint64_t word0 = pool::load_word(words.word0);
    if (!FrameMetadata::is_valid(words.home, word0, pool::load_word(words.word1())))
        return damage("I5 metadata", frame, "has metadata that fails its checksum",
                      Remedy::free_frames, 1);
    if (FrameMetadata::kind_of(word0) != FrameKind::free)
        return damage("I4 account", frame, "is in use, and a part of a huge frame",
                      Remedy::free_frames, 1);
    return std::nullopt;
}

}  // namespace

const char* name_of(FrameKind kind) {
    switch (kind) {
        case FrameKind::unused:
            break;
        case FrameKind::free:
            return "free";
        case FrameKind::data:
            return "data";
        case FrameKind::shared_data:
            return "shared_data";
        case FrameKind::space_record:
            return "space_record";
        case FrameKind::limbo_page:
            return "limbo_page";
        case FrameKind::huge_2MiB:
            return "huge_2MiB";
        case FrameKind::huge_1GiB:
            return "huge_1GiB";
        case FrameKind::table_1:
            return "table_1";
        case FrameKind::table_2:
            return "table_2";
        case FrameKind::table_3:
            return "table_3";
        case FrameKind::table_4:
            return "table_4";
        case FrameKind::table_5:
            return "table_5";
    }
    return "unknown";
}

table::PageRange LeakedRun::pages() const {
    if (is_huge()) return {index, index + format::frames_of(kind)};
    const unsigned shift = format::is_table(kind) ? 9 * format::table_level(kind) : 0;
    return {index << shift, (index + count) << shift};
}

std::string LeakedRun::to_string() const {
    if (count == 1)
        return fmt::format(
            "frame {:#x} (kind {}, owner {}) is in use, and nothing leads to it: leaked",
            first.value(), name_of(kind), owner);
    return fmt::format(
        "{} frames from {:#x} to {:#x} (kind {}, owner {}) are in use, and nothing "
        "leads to them: leaked",
        count, first.value(), first.value() + count - 1, name_of(kind), owner);
}

std::vector<LeakedRun> survey_frames(const memory::PhysicalMemory& memory, const FrameUses& uses,
                                     const VerifyOptions& options, Survey& survey,
                                     const std::function<void(std::uint64_t frames)>& between) {
    std::vector<LeakedRun> leaked;
    const auto regions = memory.regions();
    const auto zero_frame = memory.zero_frame();
    for (std::size_t number = 0; number < regions.size(); ++number) {
        const memory::Region& region = regions[number];
        const std::uint64_t initialized = region.initialized();
        // Aligned by their numbers, so that 2 MiB never lie in two.
        const std::uint64_t first_piece = region.base().value() / kFramesPerPiece;
        std::vector<Found> found((region.end().value() - 1) / kFramesPerPiece - first_piece + 1);
        std::atomic<std::uint64_t> looked_at = 0;
        const auto piece = [&](std::size_t at_piece) {
            const FrameNumber piece_base((first_piece + at_piece) * kFramesPerPiece);
            const std::uint64_t begin = std::max(piece_base, region.base()) - region.base();
            const std::uint64_t end =
                std::min(piece_base + kFramesPerPiece, region.end()) - region.base();
            // Up to here, what is seen are parts of a huge frame.
            FrameNumber parts_end;
            if (const auto huge = memory.huge_frame_around(region.base() + begin))
                parts_end = huge->end();
            for (std::uint64_t at = begin; at < end; ++at) {
                const FrameNumber frame = region.base() + at;
                const FrameUses::Use use = uses.of(number, at);
                std::optional<Damage> wrong;
                if (region.has_fixed_frames()) {
                    if (at < initialized) wrong = look_at_device(frame, at, region.metadata(frame));
                } else if (frame < parts_end) {
                    wrong = look_at_part(frame, use, region.metadata(frame));
                } else if (at < initialized) {
                    wrong = look_at(frame, use, region.metadata(frame), region.host(frame),
                                    zero_frame, found[at_piece], parts_end);
                } else {
                    ++found[at_piece].free;
                    if (use.references() != 0)
                        wrong = damage("I4 account", frame, "is used, and was never initialized",
                                       Remedy::none, 0);
                }
                if (wrong && use.references() != 0) {
                    wrong->counts_uses = true;
                    wrong->uses_in_limbo = use.from_limbo;
                }
                if (wrong) found[at_piece].damages.push_back(std::move(*wrong));
            }
            looked_at.fetch_add(end - begin, std::memory_order_relaxed);
        };
        std::uint64_t told = 0;
        const auto tell = [&] {
            const std::uint64_t now = looked_at.load(std::memory_order_relaxed);
            between(now - told);
            told = now;
        };
        parallel_for(options.threads, found.size(), piece, tell);
        tell();
        VerifyReport& report = survey.report;
        if (!region.has_fixed_frames()) report.frames_total += region.frame_count();
        for (Found& each : found) {
            report.frames_reachable += each.reachable;
            report.frames_limbo += each.limbo;
            report.frames_building += each.building;
            report.frames_free += each.free;
            for (std::size_t kind = 0; kind < each.by_kind.size(); ++kind)
                if (each.by_kind[kind] != 0)
                    report.frames_by_kind[name_of(static_cast<FrameKind>(kind))] +=
                        each.by_kind[kind];
            for (Damage& wrong : each.damages) survey.damages.push_back(std::move(wrong));
            for (const LeakedRun& run : each.leaked) add_leaked(leaked, run);
        }
    }
    return leaked;
}

}  // namespace holdfast::recovery
