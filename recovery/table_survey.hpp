// The part of a survey that looks at tables (survey.hpp): every entry of every table that roots or
// limbo lead to.
//
// Not thread-safe; shares its own work out among threads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "format/entry.hpp"
#include "recovery/frame_uses.hpp"
#include "recovery/survey.hpp"
#include "table/walk.hpp"

namespace holdfast::recovery {

// A table to be looked at.
struct TableItem {
    FrameNumber frame;
    table::TablePosition position;
    std::uint32_t space = 0;  // number of the tree's name
    Levels levels = Levels::four;
    bool is_writable = true;  // by all links above it
    // Whether the leaves below it hold references; those of a shell (LimboKind) do not.
    bool with_frames = true;
};

class TableSurvey {
  public:
    // `names`: of the trees, as findings say them. `between` is called now and then.
    TableSurvey(const memory::PhysicalMemory& memory, FrameUses& uses, FrameUses::From from,
                const std::vector<std::string>& names, const VerifyOptions& options, Survey& survey,
                std::function<void(std::uint64_t tables)> between)
        : memory_(memory),
          uses_(uses),
          from_(from),
          names_(names),
          options_(options),
          survey_(survey),
          between_(std::move(between)) {}

    // The table at the top of a tree, which has passed its checks.
    void add(const TableItem& top) { add_child(top); }
    void run();

  private:
    // What one thread has found in a few tables.
    struct Found {
        std::vector<Damage> damages;
        std::vector<TableItem> children;
        std::vector<WritableExecutable> writable_executable;
        std::uint64_t mapped_pages = 0;
        bool has_file_pages = false;
    };

    void add_child(const TableItem& item);
    void look_at(const TableItem& item, Found& found);
    bool is_expected(FaultKind kind, const TableItem& item, unsigned slot) const;
    Damage damage_of(FaultKind kind, const TableItem& item, unsigned slot, format::Entry entry);
    // A region that is out of reach may have had millions of pages: neighbours are one damage.
    static bool continues(const Found& found, FaultKind kind, const TableItem& item, unsigned slot);
    Range range_of(const TableItem& item, unsigned slot) const;

    const memory::PhysicalMemory& memory_;
    FrameUses& uses_;
    const FrameUses::From from_;
    const std::vector<std::string>& names_;
    const VerifyOptions& options_;
    Survey& survey_;
    const std::function<void(std::uint64_t)> between_;
    std::array<std::vector<TableItem>, format::kMaxLevels + 1> by_level_;
};

// Joins neighbours, in place, and puts them in order.
void join(std::vector<WritableExecutable>& ranges);

}  // namespace holdfast::recovery
