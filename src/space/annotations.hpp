// The names of a space's ranges (format/annotation.hpp), as one transaction sees and changes them.
//
// Changes are kept here until the commit applies them to the ordered map in the pool. Not
// thread-safe; the map must not change meanwhile, which the space's writer lock ensures.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "format/annotation.hpp"
#include "format/space_record.hpp"
#include "holdfast/error.hpp"
#include "pool/pool.hpp"
#include "table/table_editor.hpp"

namespace holdfast::space {

using format::Annotation;

class Annotations {
  public:
    // `object` is the map's offset, 0 for none yet.
    Annotations(const pool::Pool& pool, pool::Offset object) : pool_(&pool), object_(object) {}

    // Those that touch the range, in ascending order. damaged if a record fails its check.
    Result<std::vector<Annotation>> in(table::PageRange range) const;
    // Removes what lies in the range; what only touches it keeps its other parts.
    Result<void> cut(table::PageRange range);
    // Adds one over a range that has none; continues the one before it where the name does.
    Result<void> add(Annotation annotation);
    // Those of `other`, and no others, as it sees them now. After an error nothing is changed.
    Result<void> become(const Annotations& other);
    // Gives the range a mark, or finds the one it has. invalid_argument if a name begins or ends
    // within it.
    Result<std::uint64_t> mark(table::PageRange range, std::uint64_t next_mark);
    // Whether all of the range has this mark.
    Result<bool> has_mark(table::PageRange range, std::uint64_t mark) const;

    bool changed() const { return !changes_.empty(); }
    // Inside the commit's transaction; returns the map's offset, which is new for the first name.
    pool::Offset apply(pool::TransactionScope& scope) const;

    // Releases a few of a space's names in a commit of its own, and in the end their map, which the
    // record then forgets; true when there was nothing left to do.
    static Result<bool> release_some(const pool::Pool& pool, format::SpaceRecord& record);

  private:
    static bool erase_some(const pool::Pool& pool, pool::TransactionScope& scope,
                           pool::Offset object, std::size_t count);

    const pool::Pool* pool_;
    pool::Offset object_;
    std::map<std::uint64_t, std::optional<Annotation>> changes_;  // by first page; nothing = erased
};

}  // namespace holdfast::space
