// The volatile write set of one commit: 8-byte words of the pool and the values they are to have.
//
// Whoever prepares a change reads through its write set, and so sees its own earlier writes; nobody
// else does. `Pool::commit` makes all of it durable at once; dropping it leaves nothing behind.
//
// Two classes of words. `undo` words are snapshot into libpmemobj's undo log and stored before the
// transaction's commit point. `publish` words are those that lock-free readers follow (table
// entries, roots): they are handed to the transaction as actions of its redo log, which libpmemobj
// applies after the commit point is durable. So no reader ever sees what a crash could take back. A
// commit of a few words hands all of them to the redo log, and has no snapshot at all; a single
// word is stored without a log, and a reader may see it just before it is durable.
//
// Not thread-safe: one write set belongs to one transaction.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/container/small_vector.hpp>
#include <cstdint>
#include <unordered_map>

namespace holdfast::pool {

// Loads a word that others may change meanwhile.
inline std::uint64_t load_word(const std::uint64_t* word,
                               std::memory_order order = std::memory_order_acquire) {
    return std::atomic_ref<std::uint64_t>(*const_cast<std::uint64_t*>(word)).load(order);
}
// Stores a word that nobody else changes meanwhile, though others may read it.
inline void store_word(std::uint64_t* word, std::uint64_t value,
                       std::memory_order order = std::memory_order_release) {
    std::atomic_ref<std::uint64_t>(*word).store(value, order);
}

// Gives a word another value if it still has this one; others may do the same meanwhile.
inline bool exchange_word(std::uint64_t* word, std::uint64_t expected, std::uint64_t value) {
    return std::atomic_ref<std::uint64_t>(*word).compare_exchange_strong(expected, value,
                                                                         std::memory_order_acq_rel);
}

// Clears some of a word's bits; others may change other bits meanwhile.
inline void clear_bits(std::uint64_t* word, std::uint64_t bits) {
    std::atomic_ref<std::uint64_t>(*word).fetch_and(~bits, std::memory_order_relaxed);
}
inline void set_bits(std::uint64_t* word, std::uint64_t bits) {
    std::atomic_ref<std::uint64_t>(*word).fetch_or(bits, std::memory_order_relaxed);
}

enum class WordClass : std::uint8_t { undo, publish };

class WriteSet {
  public:
    struct Write {
        std::uint64_t* word;
        std::uint64_t value;
        WordClass word_class;
    };

    std::uint64_t load(const std::uint64_t* word) const {
        const std::size_t at = find(word);
        return at == kNone ? load_word(word) : writes_[at].value;
    }
    void store(std::uint64_t* word, std::uint64_t value, WordClass word_class) {
        if (const std::size_t at = find(word); at != kNone) {
            writes_[at].value = value;
            return;
        }
        writes_.push_back({word, value, word_class});
        if (writes_.size() > kLinear) {
            if (index_.empty())
                for (std::size_t i = 0; i < writes_.size(); ++i) index_[writes_[i].word] = i;
            else
                index_[word] = writes_.size() - 1;
        }
    }

    bool empty() const { return writes_.empty(); }
    std::size_t size() const { return writes_.size(); }
    // Most commits have a few words, and then need no memory of their own.
    static constexpr std::size_t kLinear = 16;
    using Writes = boost::container::small_vector<Write, kLinear>;
    const Writes& writes() const { return writes_; }
    // Whether any word in [begin, end) is to have a value other than 0.
    bool has_nonzero(const std::uint64_t* begin, const std::uint64_t* end) const {
        return std::any_of(writes_.begin(), writes_.end(), [&](const Write& write) {
            return write.word >= begin && write.word < end && write.value != 0;
        });
    }
    void clear() {
        writes_.clear();
        index_.clear();
    }
    // In ascending order of addresses, so that neighbours can share a snapshot.
    void sort() {
        std::sort(writes_.begin(), writes_.end(),
                  [](const Write& a, const Write& b) { return a.word < b.word; });
        index_again();
    }
    // Leaves out the words that have their value already.
    void drop_unchanged() {
        const auto kept = std::remove_if(writes_.begin(), writes_.end(), [](const Write& write) {
            return load_word(write.word) == write.value;
        });
        writes_.erase(kept, writes_.end());
        index_again();
    }

  private:
    static constexpr std::size_t kNone = ~std::size_t{0};

    std::size_t find(const std::uint64_t* word) const {
        if (writes_.size() > kLinear) {
            const auto found = index_.find(word);
            return found == index_.end() ? kNone : found->second;
        }
        for (std::size_t i = 0; i < writes_.size(); ++i)
            if (writes_[i].word == word) return i;
        return kNone;
    }

    void index_again() {
        index_.clear();
        if (writes_.size() > kLinear)
            for (std::size_t i = 0; i < writes_.size(); ++i) index_[writes_[i].word] = i;
    }

    Writes writes_;
    std::unordered_map<const std::uint64_t*, std::size_t> index_;
};

}  // namespace holdfast::pool
