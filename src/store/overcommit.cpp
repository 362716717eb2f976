// The public side of the commit charge.
#include "holdfast/overcommit.hpp"

#include <fmt/format.h>

#include "store/commit_charge.hpp"
#include "store/store_state.hpp"

namespace holdfast {

const char* to_string(OvercommitPolicy policy) {
    switch (policy) {
        case OvercommitPolicy::heuristic:
            return "heuristic";
        case OvercommitPolicy::always:
            return "always";
        case OvercommitPolicy::never:
            return "never";
    }
    return "unknown";
}

Result<void> set_overcommit(Store& store, const Overcommit& overcommit) {
    constexpr std::uint32_t kHighestRatio = 10'000;
    if (overcommit.ratio_percent == 0 || overcommit.ratio_percent > kHighestRatio)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is no part of the frames in percent; 1 to {} are",
                                overcommit.ratio_percent, kHighestRatio));
    detail::StoreState& state = store.state();
    if (auto begun = state.begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(state.gate);
    const detail::StoreState::CommitLock lock(state.commit_mutex);
    return state.commit_charge.set(overcommit);
}

CommitAccount commit_account(const Store& store) {
    detail::StoreState& state = store.state();
    CommitAccount account;
    account.overcommit = state.commit_charge.overcommit();
    account.limit_bytes = state.commit_charge.limit_pages() << kPageShift;
    if (account.overcommit.policy == OvercommitPolicy::never) {
        account.committed_bytes = state.commit_charge.committed_pages() << kPageShift;
    } else {
        const table::ChangeGate::Closed at_rest(state.gate);
        account.committed_bytes = state.commit_charge.count().committed << kPageShift;
    }
    return account;
}

}  // namespace holdfast
