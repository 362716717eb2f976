#include "context.hpp"

namespace holdfast::tool {

ExitStatus exit_status_of(ErrorCode code) {
    switch (code) {
        case ErrorCode::invalid_argument:
            return ExitStatus::wrong_usage;
        case ErrorCode::damaged:
            return ExitStatus::findings;
        default:
            return ExitStatus::refused;
    }
}

Result<Store> Context::open_store(const std::string& pool) const {
    return Store::open(pool, {.emulation = emulation()});
}

Result<Store> Context::open_copy(const std::string& pool) const {
    return Store::open(pool, {.emulation = emulation(), .as_copy = true});
}

Result<Space> Context::open_space(const std::string& pool, const std::string& name) const {
    const auto store = open_store(pool);
    if (!store) return std::unexpected(store.error());
    return store->open_space(name);
}

}  // namespace holdfast::tool
