#include "memory/free_chunk.hpp"

#include <algorithm>

namespace holdfast::memory {

FreeChunk::Run FreeChunk::take_run(unsigned wanted) {
    const unsigned last_block = last_word_ / kWordsPerBlock;
    unsigned block = last_block;
    // The next one at or after the last, or else the first.
    const auto next = [&](std::uint64_t blocks) {
        const std::uint64_t after = blocks & ~std::uint64_t{0} << last_block;
        return static_cast<unsigned>(std::countr_zero(after != 0 ? after : blocks));
    };
    if ((some_ >> block & 1) == 0) {
        if (const std::uint64_t broken = some_ & ~whole_; broken != 0)
            block = next(broken);
        else if (whole_ != 0)
            block = next(whole_);
        else
            return {};
    }
    // From the last word on, if it is of this block; then from the block's first.
    const unsigned first_word = block * kWordsPerBlock;
    const unsigned from = block == last_block ? last_word_ - first_word : 0;
    for (unsigned i = 0; i < kWordsPerBlock; ++i) {
        const unsigned word = first_word + (from + i) % kWordsPerBlock;
        if (words_[word] == 0) continue;
        const auto first = static_cast<unsigned>(std::countr_zero(words_[word]));
        const auto run = static_cast<unsigned>(std::countr_one(words_[word] >> first));
        const Run taken{word * 64 + first, std::min(run, wanted)};
        take(taken);
        return taken;
    }
    return {};
}

FreeChunk::Run FreeChunk::take_block() {
    if (whole_ == 0) return {};
    const auto block = static_cast<unsigned>(std::countr_zero(whole_));
    const std::uint64_t bit = std::uint64_t{1} << block;
    std::fill_n(words_.begin() + block * kWordsPerBlock, kWordsPerBlock, 0);
    whole_ &= ~bit;
    some_ &= ~bit;
    count_ -= kBlockFrames;
    return {block * kBlockFrames, kBlockFrames};
}

void FreeChunk::put_block(unsigned block) {
    std::fill_n(words_.begin() + block * kWordsPerBlock, kWordsPerBlock, ~std::uint64_t{0});
    const std::uint64_t bit = std::uint64_t{1} << block;
    whole_ |= bit;
    some_ |= bit;
    count_ += kBlockFrames;
}

void FreeChunk::take_all() {
    words_.fill(0);
    whole_ = some_ = 0;
    count_ = 0;
}

}  // namespace holdfast::memory
