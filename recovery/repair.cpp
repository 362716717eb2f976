#include "recovery/repair.hpp"

#include <fmt/format.h>

#include <cstring>
#include <unordered_set>

#include "format/annotation.hpp"
#include "format/space_record.hpp"
#include "memory/build_log.hpp"
#include "recovery/trim_annotation.hpp"
#include "space/annotations.hpp"

namespace holdfast::recovery {

using format::CheckedWord;
using format::FrameKind;
using format::FrameMetadata;
using format::SpaceRecord;

namespace {

constexpr bool is_structure(Remedy remedy) {
    return remedy != Remedy::none && remedy < Remedy::set_references;
}

// What `repaired` says was done, behind what was wrong.
const char* done_by(Remedy remedy) {
    switch (remedy) {
        case Remedy::none:
            break;
        case Remedy::empty_build_slot:
            return "the build is void";
        case Remedy::remove_name:
            return "the name is removed";
        case Remedy::remove_space:
            return "the space is removed";
        case Remedy::remake_metadata:
            return "it is made again";
        case Remedy::adopt_space:
            return "it does again";
        case Remedy::empty_entry:
            return "the entry is emptied";
        case Remedy::share_entry:
            return "it permits reading only, and whoever writes gets a copy";
        case Remedy::cut_limbo:
            return "all of limbo is dropped";
        case Remedy::trim_annotation:
            return "the name is trimmed to what is mapped, or removed";
        case Remedy::clear_frame:
            return "it is cleared";
        case Remedy::set_references:
            return "the count is set right";
        case Remedy::free_frames:
            return "freed";
    }
    return "";
}

class Repairer {
  public:
    Repairer(const memory::PhysicalMemory& memory, pool::OrderedMap directory,
             const table::LimboStack& limbo, const VerifyOptions& options, bool removes_lost_pages)
        : memory_(memory),
          pool_(memory.pool()),
          directory_(directory),
          limbo_(limbo),
          options_(options),
          removes_lost_pages_(removes_lost_pages) {}

    Result<RepairReport> run(std::vector<Finding> mended) {
        report_.repaired = std::move(mended);
        // Each round leaves less: damage hides what is below it, a level or a chain further on.
        for (unsigned round = 0; round < kRoundsMax; ++round) {
            Survey found = survey(memory_, directory_, limbo_, options_);
            if (!removes_lost_pages_)
                std::erase_if(found.damages,
                              [](const Damage& damage) { return damage.loss.has_value(); });
            if (found.damages.empty()) {
                report_.after = std::move(found.report);
                return std::move(report_);
            }
            if (round == 0)
                if (auto done = raise_boot_epoch(); !done) return std::unexpected(done.error());
            auto any = set_right(found);
            if (!any) return std::unexpected(any.error());
            if (!*any) return cannot(found.damages.front());
        }
        return fail(ErrorCode::damaged,
                    fmt::format("{}: after {} rounds of repair there is damage left; run `verify`, "
                                "and restore a copy",
                                pool_.path(), kRoundsMax));
    }

  private:
    static constexpr unsigned kRoundsMax = 32;

    std::unexpected<Error> cannot(const Damage& damage) const {
        return fail(ErrorCode::damaged,
                    fmt::format("{}: {}: {}, which cannot be repaired; restore a copy",
                                pool_.path(), damage.finding.what, damage.finding.detail));
    }

    // Structure, if any of it is damaged; otherwise the accounts. Whether there was anything to do.
    Result<bool> set_right(const Survey& found) {
        bool structure = false, any = false;
        for (const Damage& damage : found.damages)
            structure = structure || is_structure(damage.remedy);
        for (const Damage& damage : found.damages) {
            if (damage.remedy == Remedy::none || is_structure(damage.remedy) != structure) continue;
            if (auto done = set_right(damage); !done) return std::unexpected(done.error());
            any = true;
            Finding told = damage.finding;
            told.detail += fmt::format("; {}", done_by(damage.remedy));
            // What limbo or a build had is leaked now, and cannot be told from what was lost.
            if (damage.remedy == Remedy::free_frames && has_dropped_ && !told.space.empty())
                told.detail += " (it may have been unmapped, or never been mapped)";
            report_.repaired.push_back(std::move(told));
        }
        return any;
    }

    Result<void> set_right(const Damage& damage) {
        switch (damage.remedy) {
            case Remedy::none:
                return {};
            case Remedy::empty_build_slot:
                return empty_build_slot(static_cast<unsigned>(damage.number));
            case Remedy::remove_name:
                return remove_name(damage.key);
            case Remedy::remove_space:
                return remove_space(damage.key, damage.frame);
            case Remedy::remake_metadata:
                return remake_metadata(damage.frame);
            case Remedy::adopt_space:
                return adopt_space(damage.key, damage.frame);
            case Remedy::empty_entry:
                return empty_entries(damage.frame, static_cast<unsigned>(damage.number),
                                     damage.slots);
            case Remedy::share_entry:
                return share_entry(damage.frame, static_cast<unsigned>(damage.number));
            case Remedy::cut_limbo:
                return cut_limbo();
            case Remedy::trim_annotation:
                return trim_annotation(memory_, *record_at(damage.frame), damage.key,
                                       damage.number);
            case Remedy::clear_frame:
                // A crash in between leaves what is not zeros yet, which is found again.
                pool_.fill(memory_.host(damage.frame), 0, kPageSize);
                pool_.drain();
                return {};
            case Remedy::set_references:
                return set_references(damage.frame, static_cast<std::uint32_t>(damage.number));
            case Remedy::free_frames:
                free_frames(damage.frame, damage.number);
                return {};
        }
        return {};
    }

    // One word, one commit: a crash before it leaves the damage, a crash after it is past it.
    Result<void> commit_word(std::uint64_t* word, std::uint64_t value) {
        pool::WriteSet writes;
        writes.store(word, value, pool::WordClass::publish);
        return pool_.commit(writes);
    }
    Result<void> commit(const pool::Pool::Body& body) {
        pool::WriteSet none;
        return pool_.commit(none, body);
    }

    // Repair changes the store: what is stamped with an earlier epoch is of an earlier boot.
    Result<void> raise_boot_epoch() {
        std::uint64_t* const word = &memory_.superblock().boot_epoch;
        const std::uint64_t epoch =
            CheckedWord::decode(*word, format::kSeedBootEpoch).value_or(0) + 1;
        return commit_word(word, CheckedWord::encode(epoch, format::kSeedBootEpoch));
    }

    SpaceRecord* record_at(FrameNumber frame) const {
        return reinterpret_cast<SpaceRecord*>(memory_.host(frame));
    }
    // Whether what the record says may be believed, and concerns nobody else: a record may have
    // been written over another one.
    bool owns_its_names(FrameNumber frame) const {
        const auto metadata = memory_.valid_metadata(frame);
        const SpaceRecord& record = *record_at(frame);
        bool owns = metadata && metadata->owner == record.owner &&
                    record.magic == format::kSpaceMagic &&
                    record.checksum == record.computed_checksum();
        directory_.visit("", [&](std::string_view, std::string_view value) {
            std::uint64_t number = 0;
            if (value.size() == sizeof number) std::memcpy(&number, value.data(), sizeof number);
            const FrameNumber other = memory_.current(FrameNumber(number));
            owns = owns && (other == frame || memory_.host(other) == nullptr ||
                            record_at(other)->annotations_offset != record.annotations_offset);
            return owns;
        });
        return owns;
    }

    // --- structure ---

    Result<void> empty_build_slot(unsigned slot) {
        std::uint64_t* const word = &memory_.superblock().build_slots[slot];
        if (*word == memory::BuildLog::empty_slot_word(slot)) return {};
        has_dropped_ = true;
        // A space that the build was to make must not seem to have lost its name only.
        if (auto done = free_unnamed_records(false); !done) return done;
        return commit_word(word, memory::BuildLog::empty_slot_word(slot));
    }

    Result<void> cut_limbo() {
        std::uint64_t* const head = &memory_.superblock().limbo_head;
        if (CheckedWord::decode(*head, format::kSeedLimboHead) == std::uint64_t{0}) return {};
        has_dropped_ = true;
        // A space that was removed must not seem to have lost its name only: its record goes while
        // limbo is still damaged, and so no name is given back if a crash comes in between.
        if (auto done = free_unnamed_records(true); !done) return done;
        return commit_word(head, CheckedWord::encode(0, format::kSeedLimboHead));
    }

    // Frees the records of spaces that no name leads to, nor a build that is well, nor (unless it
    // is about to go) limbo.
    Result<void> free_unnamed_records(bool also_in_limbo) {
        std::unordered_set<std::uint64_t> kept;
        directory_.visit("", [&](std::string_view, std::string_view value) {
            std::uint64_t number = 0;
            if (value.size() == sizeof number) std::memcpy(&number, value.data(), sizeof number);
            kept.insert(memory_.current(FrameNumber(number)).value());
            return true;
        });
        if (!also_in_limbo)
            std::ignore = limbo_.visit(
                [&](const format::LimboRecord& record) {
                    kept.insert(memory_.current(table::Entry(record.entry).frame()).value());
                },
                [](FrameNumber) {});
        std::vector<format::Extent> building;
        for (unsigned slot = 0; slot < format::kBuildSlots; ++slot)
            if (const auto extents = memory::BuildLog::read_slot(memory_, slot))
                building.insert(building.end(), extents->begin(), extents->end());
        const auto is_building = [&](FrameNumber frame) {
            for (const format::Extent& extent : building)
                if (extent.contains(frame)) return true;
            return false;
        };
        for (const memory::Region& region : memory_.regions())
            for (std::uint64_t at = 0; at < region.initialized(); ++at) {
                const FrameNumber frame = region.base() + at;
                const auto metadata = memory_.valid_metadata(frame);
                if (!metadata || metadata->kind != FrameKind::space_record ||
                    kept.contains(frame.value()) || is_building(frame))
                    continue;
                if (auto done = release_names(frame); !done) return done;
                free_frames(frame, 1);
            }
        return {};
    }

    // Releases the names of a space's ranges, a few at a time. What a damaged record leads to stays
    // behind in the pool's heap: nobody knows where it is.
    Result<void> release_names(FrameNumber frame) {
        if (!owns_its_names(frame)) return {};
        for (;;) {
            auto finished = space::Annotations::release_some(pool_, *record_at(frame));
            if (!finished) return std::unexpected(finished.error());
            if (*finished) return {};
        }
    }

    Result<void> remove_name(const std::string& name) {
        return commit([&](pool::TransactionScope& scope) -> Result<void> {
            if (directory_.get(name)) directory_.erase(scope, name);
            return {};
        });
    }
    // The name goes last: until then the space is found again, with what is left of it.
    Result<void> remove_space(const std::string& name, FrameNumber frame) {
        if (auto done = release_names(frame); !done) return done;
        return remove_name(name);
    }
    Result<void> adopt_space(const std::string& name, FrameNumber frame) {
        return commit([&](pool::TransactionScope& scope) -> Result<void> {
            const std::uint64_t value = frame.value();
            directory_.put(scope, name, {reinterpret_cast<const char*>(&value), sizeof value});
            return {};
        });
    }

    // A device's is always the same. Nothing but the name leads to a space record, by its number:
    // its generation may be any. By one commit: a crash before it leaves the damage.
    Result<void> remake_metadata(FrameNumber frame) {
        const memory::MetadataWords words = memory_.metadata(frame);
        const memory::Region* const region = memory_.region_of(frame);
        const FrameMetadata metadata =
            region->has_fixed_frames()
                ? FrameMetadata::of_device(frame - region->base())
                : FrameMetadata{
                      .kind = FrameKind::space_record,
                      .references = 1,
                      .generation = FrameMetadata::generation_of(pool::load_word(words.word0)),
                      .owner = record_at(frame)->owner};
        pool::WriteSet writes;
        writes.store(words.word0, metadata.word0(words.home), pool::WordClass::publish);
        writes.store(words.word1(), metadata.word1(), pool::WordClass::publish);
        return pool_.commit(writes);
    }

    // A crash in between leaves the rest of the entries, which are found again.
    Result<void> empty_entries(FrameNumber table, unsigned slot, unsigned count) {
        for (const unsigned end = slot + count; slot < end; ++slot)
            if (auto done = commit_word(memory_.table(table) + slot, 0); !done) return done;
        return {};
    }

    Result<void> share_entry(FrameNumber frame, unsigned slot) {
        const auto metadata = memory_.valid_metadata(frame);
        const format::EntryPlace place{format::table_level(metadata->kind), slot, metadata->owner,
                                       metadata->index};
        std::uint64_t* const word = memory_.table(frame) + slot;
        const table::Entry entry(pool::load_word(word));
        const auto target = memory_.valid_metadata(entry.frame());
        return commit_word(
            word,
            entry.with_sharing(format::Sharing::copy_on_write, place, target->generation).bits());
    }

    // --- accounts ---

    Result<void> set_references(FrameNumber frame, std::uint32_t references) {
        FrameMetadata metadata = *memory_.valid_metadata(frame);
        metadata.references = references;
        const memory::MetadataWords words = memory_.metadata(frame);
        return commit_word(words.word0, metadata.word0(words.home));
    }

    // A store each, without a log: a crash leaves some of them free and the others as they were,
    // and the next survey finds those. A damaged generation may be any; nothing in the store leads
    // to the frame with any generation, so every one of them is new.
    void free_frames(FrameNumber first, std::uint64_t count) {
        for (FrameNumber frame = first; frame < first + count; frame = frame + 1) {
            const memory::MetadataWords words = memory_.metadata(frame);
            const auto generation = FrameMetadata::generation_of(pool::load_word(words.word0));
            pool::store_word(words.word0, FrameMetadata::free_word0(words.home, generation));
            pool_.flush(words.word0, sizeof *words.word0);
        }
        pool_.drain();
        report_.freed_frames += count;
    }

    const memory::PhysicalMemory& memory_;
    const pool::Pool& pool_;
    pool::OrderedMap directory_;
    const table::LimboStack& limbo_;
    const VerifyOptions options_;
    const bool removes_lost_pages_;
    RepairReport report_;
    bool has_dropped_ = false;  // limbo or a build
};

}  // namespace

Result<RepairReport> repair(const memory::PhysicalMemory& memory, pool::OrderedMap directory,
                            const table::LimboStack& limbo, const VerifyOptions& options,
                            bool removes_lost_pages, std::vector<Finding> mended) {
    return Repairer(memory, directory, limbo, options, removes_lost_pages).run(std::move(mended));
}

}  // namespace holdfast::recovery
