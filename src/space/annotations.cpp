#include "space/annotations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace holdfast::space {

using pool::OrderedMap;

Result<std::vector<Annotation>> Annotations::in(table::PageRange range) const {
    std::map<std::uint64_t, Annotation> found;
    bool damaged = false;
    if (object_ != 0) {
        const OrderedMap map(*pool_, object_);
        const auto take = [&](std::string_view key, std::string_view value) {
            const auto annotation = Annotation::decode(key, value);
            if (!annotation) {
                damaged = true;
                return false;
            }
            if (annotation->first_page >= range.end) return false;
            if (annotation->end_page() > range.begin && !changes_.contains(annotation->first_page))
                found[annotation->first_page] = *annotation;
            return true;
        };
        // The last one that begins at or before the range may reach into it.
        if (const auto before = map.last_not_after(Annotation::encode_key(range.begin)))
            take(before->key, before->value);
        map.visit(Annotation::encode_key(range.begin), take);
    }
    if (damaged)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the name of a range near page {:#x} fails its checksum; run "
                                "`verify`",
                                pool_->path(), range.begin));
    // Of the changes too, the last one before the range may reach into it.
    auto change = changes_.lower_bound(range.begin);
    while (change != changes_.begin() && !std::prev(change)->second) --change;
    if (change != changes_.begin()) --change;
    for (; change != changes_.end() && change->first < range.end; ++change)
        if (change->second && change->second->end_page() > range.begin)
            found[change->first] = *change->second;
    std::vector<Annotation> result;
    result.reserve(found.size());
    for (auto& [first_page, annotation] : found) result.push_back(std::move(annotation));
    return result;
}

Result<void> Annotations::cut(table::PageRange range) {
    if (object_ == 0 && changes_.empty()) return {};
    auto touched = in(range);
    if (!touched) return std::unexpected(touched.error());
    for (const Annotation& whole : *touched) {
        changes_[whole.first_page] = std::nullopt;
        if (whole.first_page < range.begin) {
            Annotation left = whole;
            left.page_count = range.begin - whole.first_page;
            changes_[left.first_page] = left;
        }
        if (whole.end_page() > range.end) {
            Annotation right = whole;
            right.first_page = range.end;
            right.page_count = whole.end_page() - range.end;
            right.name_offset += (range.end - whole.first_page) << kPageShift;
            changes_[right.first_page] = right;
        }
    }
    return {};
}

Result<void> Annotations::add(Annotation annotation) {
    if (annotation.first_page != 0) {
        auto before = in({annotation.first_page - 1, annotation.first_page});
        if (!before) return std::unexpected(before.error());
        if (!before->empty()) {
            Annotation& left = before->front();
            // What a handle was taken of does not grow: what is new is not what it was taken of.
            if (left.mark == 0 && left.name == annotation.name &&
                left.backing == annotation.backing && left.file == annotation.file &&
                left.name_offset + (left.page_count << kPageShift) == annotation.name_offset) {
                left.page_count += annotation.page_count;
                annotation = left;
            }
        }
    }
    changes_[annotation.first_page] = std::move(annotation);
    return {};
}

Result<void> Annotations::become(const Annotations& other) {
    constexpr table::PageRange kAll{0, ~std::uint64_t{0}};
    auto all = other.in(kAll);
    if (!all) return std::unexpected(all.error());
    if (auto done = cut(kAll); !done) return done;
    for (Annotation& each : *all) changes_[each.first_page] = std::move(each);
    return {};
}

Result<std::uint64_t> Annotations::mark(table::PageRange range, std::uint64_t next_mark) {
    auto found = in(range);
    if (!found) return std::unexpected(found.error());
    if (found->empty()) {
        changes_[range.begin] =
            Annotation{.first_page = range.begin, .page_count = range.count(), .mark = next_mark};
        return next_mark;
    }
    Annotation& whole = found->front();
    if (found->size() != 1 || whole.first_page > range.begin || whole.end_page() < range.end)
        return fail(ErrorCode::invalid_argument,
                    "a name, or the range of another handle, begins or ends within the range: take "
                    "a handle of each part");
    if (whole.mark == 0) {
        whole.mark = next_mark;
        changes_[whole.first_page] = whole;
    }
    return whole.mark;
}

Result<bool> Annotations::has_mark(table::PageRange range, std::uint64_t mark) const {
    auto found = in(range);
    if (!found) return std::unexpected(found.error());
    return found->size() == 1 && found->front().mark == mark &&
           found->front().first_page <= range.begin && found->front().end_page() >= range.end;
}

pool::Offset Annotations::apply(pool::TransactionScope& scope) const {
    const pool::Offset object = object_ != 0 ? object_ : OrderedMap::create(scope);
    OrderedMap map(*pool_, object);
    for (const auto& [first_page, annotation] : changes_) {
        const std::string key = Annotation::encode_key(first_page);
        if (annotation)
            map.put(scope, key, annotation->encode_value());
        else
            map.erase(scope, key);
    }
    return object;
}

Result<bool> Annotations::release_some(const pool::Pool& pool, format::SpaceRecord& record) {
    if (record.annotations_offset == 0) return true;
    pool::WriteSet none;
    const auto done = pool.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        const pool::Offset object = record.annotations_offset;
        if (!erase_some(pool, scope, object, 8)) return {};
        OrderedMap(pool, object).destroy(scope);
        format::SpaceRecord changed = record;
        changed.annotations_offset = 0;
        changed.checksum = changed.computed_checksum();
        scope.write(
            &record,
            std::as_bytes(std::span(&changed, 1)).first(offsetof(format::SpaceRecord, root)));
        return {};
    });
    if (!done) return std::unexpected(done.error());
    return false;
}

// Erases up to `count` records; true when none is left.
bool Annotations::erase_some(const pool::Pool& pool, pool::TransactionScope& scope,
                             pool::Offset object, std::size_t count) {
    OrderedMap map(pool, object);
    for (; count != 0; --count) {
        const auto first = map.lower_bound("");
        if (!first) return true;
        map.erase(scope, first->key);
    }
    return map.size() == 0;
}

}  // namespace holdfast::space
