#include "memory/frame_charges.hpp"

namespace holdfast::memory {

void FrameCharges::release_locked(FrameNumber frame) {
    const auto found = charges_.find(frame.value());
    if (found == charges_.end()) return;
    if (const auto sum = sums_.find(found->second.payer.value()); sum != sums_.end())
        sum->second -= found->second.pages;
    charges_.erase(found);
}

void FrameCharges::charge(FrameNumber frame, std::uint64_t pages, Payer payer) {
    if (!is_on()) return;
    const std::scoped_lock lock(mutex_);
    release_locked(frame);
    charges_[frame.value()] = {pages, payer};
    sums_[payer.value()] += pages;
}

void FrameCharges::adopt(FrameNumber frame, std::uint64_t pages, Payer payer) {
    const std::scoped_lock lock(mutex_);
    if (charges_.try_emplace(frame.value(), Charge{pages, payer}).second)
        sums_[payer.value()] += pages;
}

void FrameCharges::release(FrameNumber frame) {
    if (!is_on()) return;
    const std::scoped_lock lock(mutex_);
    release_locked(frame);
}

std::uint64_t FrameCharges::of(Payer payer) const {
    const std::scoped_lock lock(mutex_);
    const auto sum = sums_.find(payer.value());
    return sum == sums_.end() ? 0 : sum->second;
}

void FrameCharges::forget(Payer payer) {
    const std::scoped_lock lock(mutex_);
    std::erase_if(charges_, [&](const auto& each) { return each.second.payer == payer; });
    sums_.erase(payer.value());
}

}  // namespace holdfast::memory
