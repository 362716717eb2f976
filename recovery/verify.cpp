#include "recovery/verify.hpp"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <vector>

#include "format/annotation.hpp"
#include "format/space_record.hpp"
#include "memory/build_log.hpp"
#include "table/visit.hpp"
#include "table/walk.hpp"

namespace holdfast::recovery {

using format::FrameKind;
using format::FrameMetadata;
using table::Entry;
using table::TablePosition;

namespace {

class Verifier {
  public:
    Verifier(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
             const table::LimboStack& limbo)
        : memory_(memory), directory_(directory), limbo_(limbo) {
        for (const memory::Region& region : memory.regions())
            uses_.emplace_back(region.frame_count());
    }

    VerifyReport run() {
        check_builds();
        check_spaces();
        check_limbo();
        check_frames();
        return std::move(report_);
    }

  private:
    // What this check found a frame used for, beside what its metadata says.
    struct Use {
        std::uint32_t references = 0;
        bool reachable = false, limbo = false, building = false;
    };

    Use* use_of(FrameNumber frame) {
        frame = memory_.current(frame);
        const auto regions = memory_.regions();
        for (std::size_t i = 0; i < regions.size(); ++i)
            if (regions[i].contains(frame)) return &uses_[i][frame - regions[i].base()];
        return nullptr;
    }

    void find(const char* what, const std::string& space, Range range, std::string detail) {
        report_.findings.push_back({what, space, range, std::move(detail)});
    }

    void check_builds() {
        for (unsigned slot = 0; slot < format::kBuildSlots; ++slot) {
            const auto extents = memory::BuildLog::read_slot(memory_, slot);
            if (!extents) {
                find("I4 account", "", {}, extents.error().message);
                continue;
            }
            for (const format::Extent& extent : *extents)
                for (std::uint64_t i = 0; i < extent.count; ++i)
                    if (Use* use = use_of(extent.first + i)) use->building = true;
        }
    }

    void check_spaces() {
        std::map<std::uint64_t, std::string> names_of_records;
        directory_.visit("", [&](std::string_view name_view, std::string_view value) {
            const std::string name(name_view);
            std::uint64_t number = 0;
            if (value.size() == sizeof number) std::memcpy(&number, value.data(), sizeof number);
            const FrameNumber frame(number);
            const auto metadata = memory_.valid_metadata(frame);
            if (!metadata || metadata->kind != FrameKind::space_record) {
                find(
                    "I6 directory", name, {},
                    fmt::format("the name leads to frame {:#x}, which is no space record", number));
                return true;
            }
            mark(frame, false);
            if (const auto [other, first] = names_of_records.emplace(number, name); !first)
                find("I6 directory", name, {},
                     fmt::format("shares the space record {:#x} with \"{}\"", number,
                                 other->second));
            const auto* const record =
                reinterpret_cast<const format::SpaceRecord*>(memory_.host(frame));
            if (record->magic != format::kSpaceMagic ||
                record->checksum != record->computed_checksum()) {
                find("I5 metadata", name, {},
                     fmt::format("the space record {:#x} fails its checksum", number));
                return true;
            }
            if (record->name_view() != name)
                find("I6 directory", name, {},
                     fmt::format("the space record {:#x} is named \"{}\"", number,
                                 record->name_view()));
            const table::Root root{Entry(record->root), static_cast<Levels>(record->levels),
                                   record->owner};
            if (record->owner != metadata->owner || !table::check_root(memory_, root)) {
                find("I2 table", name, {}, "the root of the space fails its checks");
                return true;
            }
            space_ = name;
            levels_ = root.levels;
            check_table(root.entry.frame(), {root.top(), root.owner, 0}, false, true);
            check_annotations(*record, root);
            return true;
        });
    }

    void check_annotations(const format::SpaceRecord& record, const table::Root& root) {
        if (record.annotations_offset == 0) return;
        std::uint64_t reached = 0;
        const pool::OrderedMap map(memory_.pool(), record.annotations_offset);
        map.visit("", [&](std::string_view key, std::string_view value) {
            const auto annotation = format::Annotation::decode(key, value);
            if (!annotation) {
                find("I5 metadata", space_, {}, "the name of a range fails its checksum");
                return true;
            }
            const Range range{table::address_of_page(annotation->first_page, levels_),
                              annotation->page_count << kPageShift};
            if (annotation->first_page < reached)
                find("I7 annotation", space_, range, "overlaps the name before it");
            reached = annotation->end_page();
            std::uint64_t mapped = 0;
            table::Visitor visitor;
            visitor.range = [&](const table::VisitedRange& visited) {
                mapped += visited.pages.count();
            };
            table::visit(memory_, root, {annotation->first_page, annotation->end_page()}, visitor);
            if (mapped != annotation->page_count)
                find(
                    "I7 annotation", space_, range,
                    fmt::format("{} of {} named pages are mapped", mapped, annotation->page_count));
            return true;
        });
    }

    // Counts one more reference to the frame; true if it was not seen before.
    bool mark(FrameNumber frame, bool in_limbo) {
        Use* const use = use_of(frame);
        if (use == nullptr) return false;
        ++use->references;
        const bool first = !use->reachable && !use->limbo;
        (in_limbo ? use->limbo : use->reachable) = true;
        return first;
    }

    // `with_frames`: whether the leaves of this tree hold references (those of a shell do not).
    void check_table(FrameNumber table, const TablePosition& position, bool in_limbo,
                     bool with_frames) {
        // A table that is linked twice is counted twice and looked into once.
        if (!mark(table, in_limbo)) return;
        if (!in_limbo) ++report_.tables;
        const std::uint64_t* const words = memory_.table(table);
        for (unsigned slot = 0; slot < table::kEntriesPerTable; ++slot) {
            const Entry entry(pool::load_word(words + slot));
            if (entry.is_empty()) continue;
            const TablePosition child = position.child(slot);
            if (const auto damage = table::check_entry(memory_, entry, position, slot)) {
                // A table in limbo may point to what an interrupted release has freed already.
                if (in_limbo && (*damage == FaultKind::stale_entry || !with_frames)) continue;
                const Range range{table::address_of_page(
                                      child.index * table::entry_pages(position.level), levels_),
                                  format::entry_span_bytes(position.level)};
                // A page whose memory is out of reach is well but for that.
                if (is_loss(*damage) && with_frames) {
                    mark(entry.frame(), in_limbo);
                    if (!in_limbo) ++report_.mapped_pages;
                }
                if (is_loss(*damage) && in_limbo) continue;
                find(is_loss(*damage)                         ? "lost page"
                     : *damage == FaultKind::wrong_table      ? "I2 table"
                     : *damage == FaultKind::damaged_metadata ? "I5 metadata"
                                                              : "I1 entry",
                     space_, range,
                     fmt::format("{}: entry {:#018x} in slot {} of the level-{} table {:#x}",
                                 to_string(*damage), entry.bits(), slot, position.level,
                                 table.value()));
                continue;
            }
            if (entry.is_table(position.level)) {
                check_table(entry.frame(), child, in_limbo, with_frames);
            } else if (entry.is_present() && with_frames) {
                mark(entry.frame(), in_limbo);
                if (!in_limbo) ++report_.mapped_pages;
            }
        }
    }

    void check_limbo() {
        space_.clear();
        const auto done = limbo_.visit(
            [&](const format::LimboRecord& record) {
                const FrameNumber frame = Entry(record.entry).frame();
                levels_ = Levels::four;
                if (record.kind == format::LimboKind::space) {
                    mark(frame, true);
                } else if (table::is_table_of(memory_, frame,
                                              {record.level, record.owner, record.index})) {
                    check_table(frame, {record.level, record.owner, record.index}, true,
                                record.kind == format::LimboKind::subtree);
                } else {
                    find("I2 table", "", {},
                         fmt::format("limbo names frame {:#x}, which is not that table",
                                     frame.value()));
                }
            },
            [&](FrameNumber page) { mark(page, true); });
        if (!done) find("I4 account", "", {}, done.error().message);
    }

    void check_frames() {
        const auto regions = memory_.regions();
        for (std::size_t i = 0; i < regions.size(); ++i) {
            const memory::Region& region = regions[i];
            report_.frames_total += region.frame_count();
            for (std::uint64_t at = 0; at < region.frame_count(); ++at) {
                const Use& use = uses_[i][at];
                const FrameNumber frame = region.base() + at;
                if (at >= region.initialized()) {
                    ++report_.frames_free;
                    if (use.references != 0)
                        find("I4 account", "", {},
                             fmt::format("frame {:#x} is used and was never initialized",
                                         frame.value()));
                    continue;
                }
                const memory::MetadataWords words = region.metadata(frame);
                const std::uint64_t word0 = pool::load_word(words.word0);
                const std::uint64_t word1 = pool::load_word(words.word1());
                const bool valid = FrameMetadata::is_valid(words.home, word0, word1);
                const FrameMetadata metadata = FrameMetadata::decode(word0, word1);
                // What a build claims is free as soon as its record is dealt with, and may be
                // anything until then.
                if (use.building) {
                    ++report_.frames_building;
                    if (use.references != 0)
                        find("I4 account", "", {},
                             fmt::format("frame {:#x} is used, and claimed by an unfinished build",
                                         frame.value()));
                    continue;
                }
                if (!valid) {
                    find("I5 metadata", "", {},
                         fmt::format("the metadata of frame {:#x} fails its checksum",
                                     frame.value()));
                    continue;
                }
                if (metadata.kind == FrameKind::free) {
                    ++report_.frames_free;
                    if (use.references != 0)
                        find("I4 account", "", {},
                             fmt::format("frame {:#x} is free, and used {} times", frame.value(),
                                         use.references));
                    continue;
                }
                if (use.reachable)
                    ++report_.frames_reachable;
                else if (use.limbo)
                    ++report_.frames_limbo;
                else
                    find("I4 account", "", {},
                         fmt::format("frame {:#x} (kind {}, owner {}, index {:#x}) is in use, and "
                                     "nothing leads to it: leaked",
                                     frame.value(), static_cast<unsigned>(metadata.kind),
                                     metadata.owner, metadata.index));
                if ((use.reachable || use.limbo) && use.references != metadata.references)
                    find("I3 reference", "", {},
                         fmt::format("frame {:#x} has {} references and says {}", frame.value(),
                                     use.references, metadata.references));
            }
        }
    }

    const memory::PhysicalMemory& memory_;
    const pool::OrderedMap& directory_;
    const table::LimboStack& limbo_;
    std::vector<std::vector<Use>> uses_;
    VerifyReport report_;
    std::string space_;
    Levels levels_ = Levels::four;
};

}  // namespace

VerifyReport verify(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
                    const table::LimboStack& limbo) {
    return Verifier(memory, directory, limbo).run();
}

}  // namespace holdfast::recovery
