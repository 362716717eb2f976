#include "recovery/trim_annotation.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "format/annotation.hpp"
#include "table/visit.hpp"

namespace holdfast::recovery {

using format::Annotation;
using table::PageRange;

namespace {

std::vector<PageRange> mapped_in(const memory::PhysicalMemory& memory,
                                 const format::SpaceRecord& record, PageRange pages) {
    const table::Root root{table::Entry(record.root), static_cast<Levels>(record.levels),
                           record.owner, record.upper_owner()};
    pages.end = std::min(pages.end, table::all_pages(root.levels).end);
    std::vector<PageRange> runs;
    if (pages.begin >= pages.end) return runs;
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (visited.damage && !is_loss(*visited.damage)) return;
        if (!runs.empty() && runs.back().end == visited.pages.begin)
            runs.back().end = visited.pages.end;
        else
            runs.push_back(visited.pages);
    };
    table::visit(memory, root, pages, visitor);
    return runs;
}

Annotation part_of(const Annotation& whole, PageRange pages) {
    Annotation part = whole;
    part.first_page = pages.begin;
    part.page_count = pages.count();
    part.name_offset += (pages.begin - whole.first_page) << kPageShift;
    return part;
}

}  // namespace

Result<void> trim_annotation(const memory::PhysicalMemory& memory,
                             const format::SpaceRecord& record, const std::string& key,
                             std::uint64_t from) {
    if (record.annotations_offset == 0) return {};
    const pool::Pool& pool = memory.pool();
    pool::OrderedMap map(pool, record.annotations_offset);
    const auto value = map.get(key);
    if (!value) return {};
    const auto replace = [&](const std::string& old_key,
                             const std::vector<Annotation>& parts) -> Result<void> {
        pool::WriteSet none;
        return pool.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
            map.erase(scope, old_key);
            for (const Annotation& part : parts)
                map.put(scope, Annotation::encode_key(part.first_page), part.encode_value());
            return {};
        });
    };
    const auto whole = Annotation::decode(key, *value);
    if (!whole) return replace(key, {});

    const PageRange pages{std::max(whole->first_page, from), whole->end_page()};
    const std::vector<PageRange> runs = mapped_in(memory, record, pages);
    if (runs.empty()) return replace(key, {});
    std::string rest_key = key;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        std::vector<Annotation> parts = {part_of(*whole, runs[i])};
        std::string next_key;
        if (i + 1 < runs.size()) {
            const Annotation rest = part_of(*whole, {runs[i + 1].begin, whole->end_page()});
            next_key = Annotation::encode_key(rest.first_page);
            parts.push_back(rest);
        }
        auto done = replace(rest_key, parts);
        // No room for one more record: the rest goes without a name.
        if (!done && done.error().code == ErrorCode::no_space) return replace(rest_key, {});
        if (!done || next_key.empty()) return done;
        rest_key = std::move(next_key);
    }
    return {};
}

}  // namespace holdfast::recovery
