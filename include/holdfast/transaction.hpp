// Several calls, over several spaces, as one failure-atomic unit.
//
//     Transaction transaction = store.begin();
//     transaction.unmap(from, range);
//     transaction.map(to, range, protection::rw);
//     if (auto done = transaction.commit(); !done) return done.error();
//
// A Transaction is a volatile write set over the store. Nothing of it is reachable on the medium,
// and no reader sees any of it, before `commit`; its own calls see its earlier ones. `abort`, or
// destruction without `commit`, leaves nothing behind, in the pool or in memory.
//
// Thread safety: one thread at a time. From its first call on a space to its end it holds that
// space against other writers. Two transactions that touch the same spaces in different order
// would wait for each other; instead, the call that would have to wait returns `busy`: abort, and
// try again, or touch spaces in ascending order of `Space::root`.
//
// A call that fails with no_space, io or damaged in the middle spoils the transaction: later calls
// and `commit` return the same error. Every other error leaves it as it was before the call.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "holdfast/error.hpp"
#include "holdfast/space.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

namespace detail {
class TransactionState;
}

struct SpaceOptions {
    Levels levels = Levels::four;
    // The region (region.hpp) whose frames pages get first; when it is full or out of reach, and
    // without one, the pool's. Tables are always in the pool.
    std::optional<unsigned> region = {};
    // The name of a supervisor object (supervisor.hpp), whose half the space's upper half is.
    std::string supervisor = {};
    // Make such an object.
    bool is_supervisor = false;
};

class Transaction {
  public:
    // The new space may be used in this transaction; elsewhere it exists from `commit` on.
    Result<Space> create_space(const std::string& name, const SpaceOptions& options = {});
    // See snapshot.hpp. Constant in what is mapped; waits, with the commit, for those who are
    // writing a page of the source. Errors: already_exists, invalid_argument (the name), no_space.
    Result<Space> fork_space(const Space& source, const std::string& name);
    Result<Space> create_snapshot(const Space& source, const std::string& name);
    Result<void> rollback(const Space& space, const Space& snapshot);
    Result<void> rename_space(const std::string& from, const std::string& to);
    // For pages that get their frame from now on; see SpaceOptions::region.
    Result<void> prefer_region(const Space& space, std::optional<unsigned> region);
    // Constant in the size of the space: its frames are released by the calls that follow.
    Result<void> remove_space(const std::string& name);

    // As the functions of Space, see there.
    Result<void> map(const Space& space, Range range, Protection protection,
                     const MapOptions& options = {});
    Result<void> map_shared(const Space& space, Range range, Protection protection,
                            const Space& source, Range source_range,
                            const MapOptions& options = {});
    Result<void> unmap(const Space& space, Range range);
    Result<void> protect(const Space& space, Range range, Protection protection);
    std::expected<Translation, Fault> translate(const Space& space, VirtAddr address) const;

    // Fills pages that this transaction has mapped, whatever their protection; durable with
    // `commit`. Errors: not_mapped, invalid_argument (a page older than this transaction, which
    // could not be rolled back).
    Result<void> fill(const Space& space, VirtAddr address, std::span<const std::byte> source);

    // Makes everything durable and visible at once. After an error nothing of it is.
    [[nodiscard]] Result<void> commit();
    void abort();

    explicit Transaction(std::unique_ptr<detail::TransactionState> state);
    Transaction(Transaction&&) noexcept;
    Transaction& operator=(Transaction&&) noexcept;
    ~Transaction();

  private:
    std::unique_ptr<detail::TransactionState> state_;
};

}  // namespace holdfast
