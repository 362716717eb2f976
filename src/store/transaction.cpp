#include "holdfast/transaction.hpp"

#include "store/transaction_state.hpp"

namespace holdfast {
Transaction::Transaction(std::unique_ptr<detail::TransactionState> state)
    : state_(std::move(state)) {}
Transaction::Transaction(Transaction&&) noexcept = default;
Transaction& Transaction::operator=(Transaction&&) noexcept = default;
Transaction::~Transaction() = default;

namespace {
Result<Space> space_of(Result<std::shared_ptr<detail::SpaceState>> state) {
    if (!state) return std::unexpected(std::move(state.error()));
    return Space(std::move(*state));
}
}  // namespace

Result<Space> Transaction::create_space(const std::string& name, const SpaceOptions& options) {
    return space_of(state_->create_space(name, options));
}
Result<Space> Transaction::fork_space(const Space& source, const std::string& name) {
    return space_of(
        state_->fork_space(source.shared_state(), name, format::SpaceKind::address_space));
}
Result<Space> Transaction::create_snapshot(const Space& source, const std::string& name) {
    return space_of(state_->fork_space(source.shared_state(), name, format::SpaceKind::snapshot));
}
Result<void> Transaction::rollback(const Space& space, const Space& snapshot) {
    return state_->rollback(space.shared_state(), snapshot.shared_state());
}
Result<void> Transaction::rename_space(const std::string& from, const std::string& to) {
    return state_->rename_space(from, to);
}
Result<void> Transaction::prefer_region(const Space& space, std::optional<unsigned> region) {
    return state_->prefer_region(space.shared_state(), region);
}
Result<void> Transaction::remove_space(const std::string& name) {
    return state_->remove_space(name);
}
Result<void> Transaction::map(const Space& space, Range range, Protection protection,
                              const MapOptions& options) {
    return state_->map(space.shared_state(), range, protection, options);
}
Result<void> Transaction::map_shared(const Space& space, Range range, Protection protection,
                                     const Space& source, Range source_range,
                                     const MapOptions& options) {
    return state_->map_shared(space.shared_state(), range, protection, source.shared_state(),
                              source_range, options);
}
Result<void> Transaction::unmap(const Space& space, Range range) {
    return state_->unmap(space.shared_state(), range);
}
Result<void> Transaction::protect(const Space& space, Range range, Protection protection) {
    return state_->protect(space.shared_state(), range, protection);
}
Result<void> Transaction::fill(const Space& space, VirtAddr address,
                               std::span<const std::byte> source) {
    return state_->fill(space.shared_state(), address, source);
}
std::expected<Translation, Fault> Transaction::translate(const Space& space,
                                                         VirtAddr address) const {
    return state_->translate(space.shared_state(), address);
}
Result<void> Transaction::commit() { return state_->commit(); }
void Transaction::abort() { state_->abort(); }

}  // namespace holdfast
