#include "recovery/survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "format/annotation.hpp"
#include "format/file_record.hpp"
#include "format/space_record.hpp"
#include "memory/build_log.hpp"
#include "recovery/frame_places.hpp"
#include "recovery/frame_survey.hpp"
#include "recovery/parallel.hpp"
#include "recovery/table_survey.hpp"
#include "table/visit.hpp"

namespace holdfast::recovery {

using format::FrameKind;
using format::SpaceRecord;
using table::Entry;

namespace {

class Surveyor {
  public:
    Surveyor(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
             const table::LimboStack& limbo, const VerifyOptions& options)
        : memory_(memory), directory_(directory), limbo_(limbo), options_(options), uses_(memory) {
        if (options_.threads == 0)
            options_.threads = std::max(1U, std::thread::hardware_concurrency());
        for (const memory::Region& region : memory.regions())
            progress_.frames_total += region.frame_count();
    }

    Survey run() {
        look_at_builds();
        look_at_spaces();
        look_at_limbo();
        adopt_unnamed();
        look_at_annotations();
        const auto leaked =
            survey_frames(memory_, uses_, options_, survey_, [&](std::uint64_t frames) {
                progress_.frames += frames;
                tell();
            });
        std::vector<WalkedSpace> walked;
        for (const Annotated& space : annotated_) walked.push_back({space.name, space.root});
        name_places(memory_, walked, survey_.damages);
        for (const LeakedRun& run : leaked) look_at_leaked(run);
        // Where only the count says that there are others, the count is wrong.
        std::erase_if(survey_.damages, [&](const Damage& damage) {
            return damage.remedy == Remedy::share_entry && uses_.of(damage.target).references() < 2;
        });
        for (Damage& damage : survey_.damages)
            if (damage.remedy == Remedy::empty_build_slot && damage.frame != FrameNumber{})
                damage.number = slot_that_claims(damage.frame);
        join(survey_.report.writable_executable);
        for (const Damage& damage : survey_.damages) tell_of(damage);
        return std::move(survey_);
    }

  private:
    // Lost ranges that continue each other, over the edge of a table, are told as one.
    void tell_of(const Damage& damage) {
        std::vector<Finding>& findings = survey_.report.findings;
        if (damage.loss && last_loss_ == damage.loss && !findings.empty() &&
            findings.back().what == damage.finding.what &&
            findings.back().space == damage.finding.space &&
            findings.back().range.end() == damage.finding.range.start) {
            findings.back().range.size_bytes += damage.finding.range.size_bytes;
            return;
        }
        findings.push_back(damage.finding);
        last_loss_ = damage.loss;
    }
    void tell() {
        if (options_.on_progress) options_.on_progress(progress_);
    }
    void found(const char* what, const std::string& space, Range range, std::string detail,
               Remedy remedy, std::uint64_t number = 0, std::string key = {},
               FrameNumber frame = {}) {
        survey_.damages.push_back({.finding = {what, space, range, std::move(detail)},
                                   .remedy = remedy,
                                   .frame = frame,
                                   .number = number,
                                   .key = std::move(key)});
    }

    // --- builds ---

    void look_at_builds() {
        for (unsigned slot = 0; slot < format::kBuildSlots; ++slot) {
            const auto extents = memory::BuildLog::read_slot(memory_, slot);
            if (!extents) {
                may_adopt_ = false;
                found("I4 account", "", {}, extents.error().message, Remedy::empty_build_slot,
                      slot);
                continue;
            }
            for (const format::Extent& extent : *extents) {
                claims_.push_back({slot, extent});
                for (std::uint64_t i = 0; i < extent.count; ++i)
                    uses_.set_building(extent.first + i);
            }
        }
    }

    unsigned slot_that_claims(FrameNumber frame) const {
        for (const Claim& claim : claims_)
            if (claim.extent.contains(frame)) return claim.slot;
        return 0;
    }

    // --- spaces ---

    static bool passes_its_checks(const SpaceRecord& record) {
        return record.magic == format::kSpaceMagic &&
               record.checksum == record.computed_checksum() && record.levels >= 3 &&
               record.levels <= format::kMaxLevels &&
               (record.kind != format::SpaceKind::file ||
                format::FileRecord::of(&record).is_valid());
    }
    // The record, if it is one and well.
    const SpaceRecord* record_at(FrameNumber frame) const {
        const auto metadata = memory_.valid_metadata(frame);
        if (!metadata || metadata->kind != FrameKind::space_record ||
            memory_.host(frame) == nullptr)
            return nullptr;
        const auto* const record = reinterpret_cast<const SpaceRecord*>(memory_.host(frame));
        return passes_its_checks(*record) && record->owner == metadata->owner ? record : nullptr;
    }
    // Whether the frame is the record of this space though its metadata does not say so: record,
    // name and root say it.
    bool is_whole_record(FrameNumber frame, const std::string& name) const {
        if (memory_.host(frame) == nullptr) return false;
        const auto* const record = reinterpret_cast<const SpaceRecord*>(memory_.host(frame));
        return passes_its_checks(*record) && record->name_view() == name &&
               table::check_root(memory_, root_of(*record));
    }
    static table::Root root_of(const SpaceRecord& record) {
        return {Entry(pool::load_word(&record.root)), static_cast<Levels>(record.levels),
                record.owner, record.upper_owner()};
    }
    static Range whole(Levels levels) {
        return {VirtAddr(0), std::uint64_t{1} << virtual_address_bits(levels)};
    }

    void look_at_spaces() {
        std::map<std::uint64_t, std::string> names_of_records;
        std::vector<TableItem> tops;
        directory_.visit("", [&](std::string_view name_view, std::string_view value) {
            const std::string name(name_view);
            std::uint64_t number = 0;
            if (value.size() == sizeof number) std::memcpy(&number, value.data(), sizeof number);
            if (auto top =
                    look_at_name(name, memory_.current(FrameNumber(number)), names_of_records)) {
                top->space = static_cast<std::uint32_t>(names_.size());
                names_.push_back(shown(name, top->position.owner));
                tops.push_back(*top);
            }
            return true;
        });
        TableSurvey tables(memory_, uses_, FrameUses::From::space, names_, options_, survey_,
                           [&](std::uint64_t count) { add_tables(count); });
        for (const TableItem& top : tops) tables.add(top);
        tables.run();
    }

    // The root table of the space of this name, if all down to it is well.
    std::optional<TableItem> look_at_name(const std::string& name, FrameNumber frame,
                                          std::map<std::uint64_t, std::string>& names_of_records) {
        const auto wrong = [&](const char* what, Range range, std::string detail, Remedy remedy) {
            found(what, shown(name, 0), range, std::move(detail), remedy, 0, name, frame);
        };
        const auto metadata = memory_.valid_metadata(frame);
        const bool lost_metadata_only = !metadata && is_whole_record(frame, name);
        if (lost_metadata_only) {
            wrong("I5 metadata", {},
                  fmt::format("the metadata of the space record {:#x} fails its checksum",
                              frame.value()),
                  Remedy::remake_metadata);
        } else if (!metadata || metadata->kind != FrameKind::space_record ||
                   memory_.host(frame) == nullptr) {
            wrong("I6 directory", {},
                  fmt::format("the name leads to frame {:#x}, which is no space record",
                              frame.value()),
                  Remedy::remove_name);
            return std::nullopt;
        }
        const auto* const record = reinterpret_cast<const SpaceRecord*>(memory_.host(frame));
        const SpaceRecord* const well = lost_metadata_only ? record : record_at(frame);
        const bool is_named_so = well != nullptr && well->name_view() == name;
        if (const auto [other, first] = names_of_records.emplace(frame.value(), name); !first) {
            // Of two names, the one that the record does not say is wrong.
            if (!is_named_so)
                wrong("I6 directory", {},
                      fmt::format("shares the space record {:#x} with \"{}\"", frame.value(),
                                  other->second),
                      Remedy::remove_name);
            return std::nullopt;
        }
        uses_.add(frame, FrameUses::From::space);
        if (well != nullptr && !is_named_so)
            wrong("I6 directory", {},
                  fmt::format("the space record {:#x} is named \"{}\"", frame.value(),
                              well->name_view()),
                  Remedy::remove_name);
        if (well == nullptr) {
            const bool has_levels = record->levels >= 3 && record->levels <= format::kMaxLevels;
            wrong("I5 metadata",
                  whole(has_levels ? static_cast<Levels>(record->levels) : Levels::four),
                  fmt::format("the space record {:#x} fails its checks", frame.value()),
                  Remedy::remove_space);
            return std::nullopt;
        }
        const table::Root root = root_of(*record);
        if (!table::check_root(memory_, root)) {
            wrong("I2 table", whole(root.levels), "the root of the space fails its checks",
                  Remedy::remove_space);
            return std::nullopt;
        }
        if (record->kind == format::SpaceKind::file) add_file(*record);
        annotated_.push_back({shown(name, root.owner), frame, root, record->annotations_offset});
        return TableItem{.frame = memory_.current(root.entry.frame()),
                         .position = table::top_position(root),
                         .levels = root.levels};
    }

    void add_file(const SpaceRecord& record) {
        files_[record.owner] = std::string(format::FileRecord::of(&record).path_view());
    }

    // As findings say it: a file object by the path of its file, if that is known.
    std::string shown(const std::string& name, format::OwnerId owner) const {
        if (!format::FileRecord::owner_of(name)) return name;
        const auto path = files_.find(owner);
        return path != files_.end() ? "file " + path->second : "file " + name.substr(1);
    }

    // A space record that nothing leads to, with all of its space: only its name was lost. While
    // limbo or a build is damaged it may as well be one that was removed, or never committed.
    void adopt_unnamed() {
        if (!may_adopt_) return;
        const auto regions = memory_.regions();
        for (std::size_t i = 0; i < regions.size(); ++i) {
            const std::uint64_t initialized = regions[i].initialized();
            for (std::uint64_t at = 0; at < initialized; ++at) {
                const FrameNumber frame = regions[i].base() + at;
                const std::uint64_t word0 = pool::load_word(regions[i].metadata(frame).word0);
                if (format::FrameMetadata::kind_of(word0) != FrameKind::space_record) continue;
                const FrameUses::Use use = uses_.of(i, at);
                const SpaceRecord* const record = record_at(frame);
                if (use.references() != 0 || use.building || record == nullptr ||
                    !table::check_root(memory_, root_of(*record)))
                    continue;
                const std::string name(record->name_view());
                // It is there again in the next round, and what says that a range is of it is
                // right.
                if (record->kind == format::SpaceKind::file) add_file(*record);
                const auto taken = directory_.get(name);
                found(
                    "I6 directory", shown(name, record->owner), {},
                    fmt::format("the space record {:#x} is of this name, which does not lead to it",
                                frame.value()),
                    taken ? Remedy::none : Remedy::adopt_space, 0, name, frame);
            }
        }
    }

    // A line of a table that was lost is a line of empty entries, and only the frames that they led
    // to tell which pages these were. Pages that have frames again were not lost by it. (Where
    // limbo or a build is damaged, frames may be leaked that were unmapped, or never mapped.)
    void look_at_leaked(const LeakedRun& run) {
        const Annotated* space = nullptr;
        Range range;
        for (const Annotated& each : annotated_) {
            if (space != nullptr || each.root.owner != run.owner || !run.has_place() ||
                run.pages().end > table::all_pages(each.root.levels).end)
                continue;
            bool is_mapped = false;
            table::Visitor visitor;
            visitor.range = [&](const table::VisitedRange& visited) {
                is_mapped = is_mapped || visited.entry.has_frame();
            };
            const table::PageRange pages = run.pages();
            table::visit(memory_, each.root, pages, visitor);
            if (is_mapped) continue;
            space = &each;
            range = {table::address_of_page(pages.begin, each.root.levels), pages.count()
                                                                                << kPageShift};
        }
        found("I4 account", space != nullptr ? space->name : "", range, run.to_string(),
              Remedy::free_frames, run.count, {}, run.first);
    }

    // --- names of ranges ---
    //
    // Looked at when all files are known: also one whose record only lost its name.

    struct Annotated {
        std::string name;
        FrameNumber record;
        table::Root root;
        pool::Offset object = 0;
    };
    struct Named {
        const Annotated* space = nullptr;
        format::Annotation annotation;
        std::uint64_t mapped_pages = 0;
    };

    void look_at_annotations() {
        std::vector<Named> all;
        for (const Annotated& space : annotated_) {
            if (space.object == 0) continue;
            std::uint64_t reached = 0;
            pool::OrderedMap(memory_.pool(), space.object)
                .visit("", [&](std::string_view key, std::string_view value) {
                    const auto annotation = format::Annotation::decode(key, value);
                    if (!annotation) {
                        found("I5 metadata", space.name, {},
                              "the name of a range fails its checksum", Remedy::trim_annotation, 0,
                              std::string(key), space.record);
                        return true;
                    }
                    const std::uint64_t end = table::all_pages(space.root.levels).end;
                    if (annotation->first_page >= end ||
                        annotation->page_count > end - annotation->first_page) {
                        found(
                            "I7 annotation", space.name, {},
                            fmt::format("the name of {:#x} pages from page {:#x} on reaches out of "
                                        "the space",
                                        annotation->page_count, annotation->first_page),
                            Remedy::trim_annotation, 0, std::string(key), space.record);
                        return true;
                    }
                    if (annotation->first_page < reached)
                        found("I7 annotation", space.name, range_of(space, *annotation),
                              "overlaps the name before it", Remedy::trim_annotation, reached,
                              std::string(key), space.record);
                    reached = std::max(reached, annotation->end_page());
                    if (annotation->backing != format::Backing::none &&
                        !files_.contains(annotation->file)) {
                        found("I7 annotation", space.name, range_of(space, *annotation),
                              "is of a file that has no record", Remedy::trim_annotation,
                              annotation->end_page(), std::string(key), space.record);
                        return true;
                    }
                    all.push_back({&space, *annotation});
                    return true;
                });
        }
        const auto count_mapped = [&](Named& named) {
            table::Visitor visitor;
            visitor.range = [&](const table::VisitedRange& visited) {
                named.mapped_pages += visited.pages.count();
            };
            table::visit(memory_, named.space->root,
                         {named.annotation.first_page, named.annotation.end_page()}, visitor);
        };
        constexpr std::size_t kNamesPerPiece = 64;
        const auto piece = [&](std::size_t number) {
            const std::size_t end = std::min((number + 1) * kNamesPerPiece, all.size());
            for (std::size_t i = number * kNamesPerPiece; i < end; ++i) count_mapped(all[i]);
        };
        parallel_for(options_.threads, (all.size() + kNamesPerPiece - 1) / kNamesPerPiece, piece,
                     [&] { tell(); });
        for (const Named& named : all)
            if (named.mapped_pages != named.annotation.page_count)
                found("I7 annotation", named.space->name, range_of(*named.space, named.annotation),
                      fmt::format("{} of {} named pages are mapped", named.mapped_pages,
                                  named.annotation.page_count),
                      Remedy::trim_annotation, 0,
                      format::Annotation::encode_key(named.annotation.first_page),
                      named.space->record);
        if (survey_.has_file_pages) look_for_files(all);
    }

    // Pages that are in a file, and nothing says in which.
    void look_for_files(const std::vector<Named>& all) {
        for (const Annotated& space : annotated_) {
            if (files_.contains(space.root.owner)) continue;
            std::map<std::uint64_t, std::uint64_t> known;  // ranges of files: begin to end
            for (const Named& named : all)
                if (named.space == &space && named.annotation.backing != format::Backing::none)
                    known[named.annotation.first_page] = named.annotation.end_page();
            table::Visitor visitor;
            visitor.range = [&](const table::VisitedRange& visited) {
                if (visited.damage || visited.entry.is_present() ||
                    visited.entry.absent_kind() != format::AbsentKind::file_backed)
                    return;
                const FrameNumber table = table_of(space.root, visited);
                found("I7 annotation", space.name,
                      {table::address_of_page(visited.pages.begin, space.root.levels),
                       visited.pages.count() << kPageShift},
                      "is in a file, and nothing says in which", Remedy::empty_entry,
                      visited.pages.begin / table::entry_pages(visited.level) %
                          format::kEntriesPerTable,
                      {}, table);
            };
            const table::PageRange own = table::own_pages(space.root);
            std::uint64_t from = 0;
            for (const auto& [begin, end] : known) {
                table::visit(memory_, space.root, {from, std::max(from, begin)}, visitor);
                from = std::max(from, end);
            }
            // What a supervisor object maps, the object's annotations say.
            table::visit(memory_, space.root, {from, std::max(from, own.end)}, visitor);
        }
    }
    // The table that has the entry which was visited.
    FrameNumber table_of(const table::Root& root, const table::VisitedRange& visited) const {
        FrameNumber table = memory_.current(root.entry.frame());
        for (unsigned level = root.top(); level > visited.level; --level) {
            const std::uint64_t slot = visited.pages.begin / table::entry_pages(level);
            table = memory_.current(
                Entry(pool::load_word(memory_.table(table) + slot % format::kEntriesPerTable))
                    .frame());
        }
        return table;
    }

    static Range range_of(const Annotated& space, const format::Annotation& annotation) {
        return {table::address_of_page(annotation.first_page, space.root.levels),
                annotation.page_count << kPageShift};
    }

    // --- limbo ---

    void look_at_limbo() {
        static const std::vector<std::string> kNoName = {""};
        TableSurvey tables(memory_, uses_, FrameUses::From::limbo, kNoName, options_, survey_,
                           [&](std::uint64_t count) { add_tables(count); });
        const auto wrong = [&](const char* what, std::string detail) {
            may_adopt_ = false;
            found(what, "", {}, std::move(detail), Remedy::cut_limbo);
        };
        const auto done = limbo_.visit(
            [&](const format::LimboRecord& record) {
                const FrameNumber frame = memory_.current(Entry(record.entry).frame());
                const table::TablePosition position{record.level, record.owner, record.index};
                if (record.kind == format::LimboKind::space) {
                    uses_.add(frame, FrameUses::From::limbo);
                    if (record_at(frame) == nullptr)
                        wrong("I5 metadata",
                              fmt::format("limbo names frame {:#x}, which is no space record",
                                          frame.value()));
                } else if (table::is_table_of(memory_, frame, position) &&
                           memory_.host(frame) != nullptr) {
                    tables.add({.frame = frame,
                                .position = position,
                                .with_frames = record.kind == format::LimboKind::subtree});
                } else {
                    wrong("I2 table",
                          fmt::format("limbo names frame {:#x}, which is not that table",
                                      frame.value()));
                }
            },
            [&](FrameNumber page) { uses_.add(page, FrameUses::From::limbo); });
        if (!done) wrong("I4 account", done.error().message);
        tables.run();
    }

    void add_tables(std::uint64_t count) {
        progress_.tables += count;
        tell();
    }

    struct Claim {
        unsigned slot = 0;
        format::Extent extent;
    };

    const memory::PhysicalMemory& memory_;
    const pool::OrderedMap& directory_;
    const table::LimboStack& limbo_;
    VerifyOptions options_;
    FrameUses uses_;
    Survey survey_;
    VerifyProgress progress_;
    std::vector<Claim> claims_;
    std::vector<std::string> names_;
    std::vector<Annotated> annotated_;
    std::map<std::uint64_t, std::string> files_;  // paths, by the owner of the file object
    bool may_adopt_ = true;
    std::optional<FaultKind> last_loss_;
};

}  // namespace

Survey survey(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
              const table::LimboStack& limbo, const VerifyOptions& options) {
    return Surveyor(memory, directory, limbo, options).run();
}

}  // namespace holdfast::recovery
