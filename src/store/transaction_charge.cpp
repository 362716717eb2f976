// What a transaction adds to, and takes from, the commit charge of the store
// (store/commit_charge.hpp).
#include <fmt/format.h>

#include <algorithm>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using table::PageRange;
using table::TableEditor;

void TransactionState::begin_charging() {
    if (joined_.empty() && !holds_directory_) policy_ = store_->commit_charge.overcommit().policy;
}

Result<void> TransactionState::charge(Joined& joined, std::int64_t pages, Promise promise) {
    if (pages == 0 || policy_ == OvercommitPolicy::always) return {};
    if (policy_ == OvercommitPolicy::heuristic) {
        const std::uint64_t total = store_->commit_charge.total_pages();
        if (promise == Promise::was_given || pages < 0 ||
            static_cast<std::uint64_t>(pages) <= total)
            return {};
        is_refused_ = true;
        return fail(ErrorCode::no_space,
                    fmt::format("{}: {} pages are more than all {} frames of the store (policy "
                                "heuristic); map less, add a region, or set another policy",
                                store_->pool->path(), pages, total));
    }
    if (!joined.space->is_snapshot) {
        const std::int64_t net = charged_ + pages;
        if (net > static_cast<std::int64_t>(reserved_)) {
            const std::uint64_t more = static_cast<std::uint64_t>(net) - reserved_;
            auto done = store_->commit_charge.reserve(more, promise == Promise::was_given);
            is_refused_ = !done;
            if (!done) return done;
            reserved_ += more;
        }
        charged_ = net;
    }
    joined.charged += pages;
    return {};
}

Result<std::int64_t> TransactionState::charged_pages(Joined& joined, PageRange pages) {
    // A range that cannot be too large for the heuristic is not looked at for it.
    if (policy_ == OvercommitPolicy::always ||
        (policy_ == OvercommitPolicy::heuristic &&
         pages.count() <= store_->commit_charge.total_pages()))
        return 0;
    const auto charged = TableEditor(session_, joined.root).charged_pages(pages);
    if (!charged) return std::unexpected(charged.error());
    return static_cast<std::int64_t>(*charged);
}

Result<void> TransactionState::charge_since(Joined& joined, PageRange pages, std::int64_t before) {
    const auto after = charged_pages(joined, pages);
    if (!after) return std::unexpected(after.error());
    return charge(joined, *after - before);
}

std::int64_t TransactionState::charge_of(const Joined& joined) {
    if (policy_ != OvercommitPolicy::never) return 0;
    return static_cast<std::int64_t>(store_->commit_charge.of_space(joined.space->record)) +
           joined.charged;
}

void TransactionState::settle_charge() {
    if (policy_ != OvercommitPolicy::never) return store_->commit_charge.forget();
    boost::container::small_vector<CommitCharge::Change, 4> changes;
    for (const Joined& joined : joined_)
        if (joined.charged != 0 || joined.removed)
            changes.push_back({.record = joined.space->record,
                               .pages = joined.charged,
                               .is_snapshot = joined.space->is_snapshot,
                               .is_removed = joined.removed});
    if (!changes.empty() || reserved_ != 0)
        store_->commit_charge.committed({changes.data(), changes.size()}, reserved_);
    charged_ = 0;
    reserved_ = 0;
}

void TransactionState::give_charge_back() {
    if (reserved_ != 0) store_->commit_charge.give_back(reserved_);
    charged_ = 0;
    reserved_ = 0;
}

}  // namespace holdfast::detail
