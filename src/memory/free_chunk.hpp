// Which of 32,768 frames, an aligned 128 MiB, are free: a bit a frame, and of each block of 512,
// an aligned 2 MiB, whether all of them are free and whether any is.
//
// What a buddy allocator keeps in lists, one a size, is seen here at a glance: the sizes wanted are
// one frame, a block (one bit of a word), and 1 GiB (eight chunks that are all free). Nothing is
// split or joined: taking a frame of a whole block clears one bit of the word, and giving back its
// last one sets it again. Single frames come from broken blocks as long as there are any, so that
// whole ones stay whole.
//
// Not thread-safe.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace holdfast::memory {

class FreeChunk {
  public:
    static constexpr unsigned kFrames = 32768;
    static constexpr unsigned kBlockFrames = 512;
    static constexpr unsigned kBlocks = kFrames / kBlockFrames;

    // Frames that follow each other, by their place in the chunk.
    struct Run {
        unsigned first = 0, count = 0;
    };

    unsigned count() const { return count_; }
    bool is_free(unsigned at) const { return words_[at / 64] >> (at % 64) & 1; }
    bool is_all_free() const { return whole_ == ~std::uint64_t{0}; }
    unsigned whole_blocks() const { return static_cast<unsigned>(std::popcount(whole_)); }

    // The frame becomes free; it was not.
    void put(unsigned at) {
        const unsigned block = at / kBlockFrames;
        words_[at / 64] |= std::uint64_t{1} << (at % 64);
        ++count_;
        some_ |= std::uint64_t{1} << block;
        if (words_[at / 64] == ~std::uint64_t{0} && has_all(block))
            whole_ |= std::uint64_t{1} << block;
    }
    // The same of a whole block, none of which was.
    void put_block(unsigned block);
    // Whether none of the block is free.
    bool has_none_of(unsigned block) const { return (some_ >> block & 1) == 0; }
    // Nearly always there is one in the word where the last one was.
    bool take_near_last(unsigned& at) {
        if (words_[last_word_] == 0) return false;
        at = last_word_ * 64 + static_cast<unsigned>(std::countr_zero(words_[last_word_]));
        take({at, 1});
        return true;
    }
    // This one, which is free.
    void take_one(unsigned at) { take({at, 1}); }
    // At most `wanted` that follow each other within 64, or none: from the block where the last
    // came from, else from another broken one, else from a whole one.
    Run take_run(unsigned wanted);
    // A whole block; count 0 if there is none.
    Run take_block();
    void take_all();

  private:
    static constexpr unsigned kWordsPerBlock = kBlockFrames / 64;

    bool has_all(unsigned block) const {
        std::uint64_t all = ~std::uint64_t{0};
        for (unsigned i = 0; i < kWordsPerBlock; ++i) all &= words_[block * kWordsPerBlock + i];
        return all == ~std::uint64_t{0};
    }
    bool has_none(unsigned block) const {
        std::uint64_t any = 0;
        for (unsigned i = 0; i < kWordsPerBlock; ++i) any |= words_[block * kWordsPerBlock + i];
        return any == 0;
    }
    // Within one word.
    void take(Run run) {
        const std::uint64_t mask =
            (run.count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << run.count) - 1)
            << (run.first % 64);
        std::uint64_t& word = words_[run.first / 64];
        const unsigned block = run.first / kBlockFrames;
        word &= ~mask;
        count_ -= run.count;
        last_word_ = run.first / 64;
        whole_ &= ~(std::uint64_t{1} << block);
        if (word == 0 && has_none(block)) some_ &= ~(std::uint64_t{1} << block);
    }

    std::array<std::uint64_t, kFrames / 64> words_{};
    std::uint64_t whole_ = 0, some_ = 0;
    unsigned count_ = 0;
    unsigned last_word_ = 0;
};

}  // namespace holdfast::memory
