#include "recovery/repair.hpp"

#include "holdfast/repair.hpp"
#include "pool/pool_file.hpp"
#include "store/repair.hpp"
#include "store/store_state.hpp"

namespace holdfast {

namespace detail {

Result<RepairReport> repair_at_once(const std::string& path, const RepairOptions& options,
                                    bool as_copy) {
    std::vector<Finding> mended;
    auto store =
        StoreState::open(path, {.emulation = options.emulation, .as_copy = as_copy}, &mended);
    if (!store) return std::unexpected(store.error());
    (*store)->files.take_up((*store)->directory());
    return recovery::repair((*store)->memory, (*store)->directory(), (*store)->limbo,
                            {.threads = options.threads, .on_progress = options.on_progress},
                            options.remove_lost_pages, std::move(mended));
}

}  // namespace detail

Result<RepairReport> repair_file(const std::string& path, const RepairOptions& options) {
    auto rehearsed = detail::repair_at_once(path, options, true);
    if (!rehearsed || options.dry_run || rehearsed->repaired.empty()) return rehearsed;
    // What comes now must not stop half-way for want of a block.
    if (auto filled = pool::fill_holes(path); !filled) return std::unexpected(filled.error());
    return detail::repair_at_once(path, options, false);
}

}  // namespace holdfast
