// The words of the public types.
#include <fmt/format.h>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/region.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

std::optional<Protection> Protection::parse(const std::string& letters) {
    std::uint8_t mask = 0;
    for (const char letter : letters) {
        switch (letter) {
            case 'r':
                mask |= kRead;
                break;
            case 'w':
                mask |= kWrite;
                break;
            case 'x':
                mask |= kExecute;
                break;
            case 'u':
                mask |= kUser;
                break;
            case '-':
                break;
            default:
                return std::nullopt;
        }
    }
    return Protection(mask);
}

std::string Protection::to_string() const {
    std::string text = "----";
    if (readable()) text[0] = 'r';
    if (writable()) text[1] = 'w';
    if (executable()) text[2] = 'x';
    if (user()) text[3] = 'u';
    return text;
}

const char* to_string(ErrorCode code) {
    switch (code) {
        case ErrorCode::invalid_argument:
            return "invalid_argument";
        case ErrorCode::already_exists:
            return "already_exists";
        case ErrorCode::not_found:
            return "not_found";
        case ErrorCode::overlap:
            return "overlap";
        case ErrorCode::not_mapped:
            return "not_mapped";
        case ErrorCode::permission_denied:
            return "permission_denied";
        case ErrorCode::no_space:
            return "no_space";
        case ErrorCode::over_quota:
            return "over_quota";
        case ErrorCode::busy:
            return "busy";
        case ErrorCode::not_a_pool:
            return "not_a_pool";
        case ErrorCode::unsupported:
            return "unsupported";
        case ErrorCode::damaged:
            return "damaged";
        case ErrorCode::lost:
            return "lost";
        case ErrorCode::stale:
            return "stale";
        case ErrorCode::io:
            return "io";
    }
    return "unknown";
}

const char* to_string(FaultKind kind) {
    switch (kind) {
        case FaultKind::non_canonical:
            return "non_canonical";
        case FaultKind::not_mapped:
            return "not_mapped";
        case FaultKind::demand_zero:
            return "demand_zero";
        case FaultKind::guard:
            return "guard";
        case FaultKind::protection:
            return "protection";
        case FaultKind::copy_on_write:
            return "copy_on_write";
        case FaultKind::swapped:
            return "swapped";
        case FaultKind::file_backed:
            return "file_backed";
        case FaultKind::file_end:
            return "file_end";
        case FaultKind::stack_room:
            return "stack_room";
        case FaultKind::damaged_entry:
            return "damaged_entry";
        case FaultKind::stale_entry:
            return "stale_entry";
        case FaultKind::wrong_table:
            return "wrong_table";
        case FaultKind::damaged_metadata:
            return "damaged_metadata";
        case FaultKind::no_region:
            return "no_region";
        case FaultKind::region_missing:
            return "region_missing";
        case FaultKind::region_detached:
            return "region_detached";
        case FaultKind::region_replaced:
            return "region_replaced";
        case FaultKind::region_shrunk:
            return "region_shrunk";
        case FaultKind::region_outdated:
            return "region_outdated";
        case FaultKind::volatile_lost:
            return "volatile_lost";
        case FaultKind::file_missing:
            return "file_missing";
        case FaultKind::file_replaced:
            return "file_replaced";
        case FaultKind::file_truncated:
            return "file_truncated";
        case FaultKind::file_changed:
            return "file_changed";
    }
    return "unknown";
}

const char* to_string(RegionKind kind) {
    switch (kind) {
        case RegionKind::pool:
            return "pool";
        case RegionKind::external:
            return "external";
        case RegionKind::volatile_memory:
            return "volatile";
        case RegionKind::swap:
            return "swap";
        case RegionKind::device:
            return "device";
    }
    return "unknown";
}

const char* to_string(RegionState state) {
    switch (state) {
        case RegionState::attached:
            return "attached";
        case RegionState::detached:
            return "detached";
        case RegionState::missing:
            return "missing";
        case RegionState::replaced:
            return "replaced";
        case RegionState::shrunk:
            return "shrunk";
        case RegionState::outdated:
            return "outdated";
    }
    return "unknown";
}

std::string to_string(const Uuid& uuid) {
    std::string text;
    for (std::size_t i = 0; i < uuid.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
        text += fmt::format("{:02x}", uuid[i]);
    }
    return text;
}

std::string Fault::to_string() const {
    std::string text = fmt::format("{} at {:#x}", holdfast::to_string(kind), address.bits());
    if (level != 0) text += fmt::format(", level {}", level);
    if (kind == FaultKind::protection || kind == FaultKind::copy_on_write)
        text += fmt::format(", mapped {}", protection.to_string());
    if (region) text += fmt::format(", region {}", *region);
    if (entry != 0) text += fmt::format(", entry {:#018x}", entry);
    return text;
}

}  // namespace holdfast
