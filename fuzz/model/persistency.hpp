// The x86 persistency model: which contents of the medium a crash may leave.
//
// Feed it a trace, event by event; at any moment `pending()` says which lines are undetermined and
// `candidates()` what each of them may hold. A crash keeps one candidate of each line, lines
// independently of one another: the states of a crash point are the product.
//
// The rules, and where they come from (Px86: Raad, Wickerson, Neiger, Vafeiadis, POPL'20; Khyzha
// and Lahav, POPL'21; non-temporal stores: Raad, Maranget, Vafeiadis, POPL'22; Intel SDM vol.
// 1, 11.12 and vol. 2, CLWB, CLFLUSHOPT, SFENCE):
//   P1 An aligned store of at most 8 bytes reaches the medium whole; a wider or a misaligned one
//      is several pieces, split at 8-byte alignment, in no order among themselves.
//   P2 Stores to one line reach the medium in their order: what a crash keeps of a line is a prefix
//      of its stores. Lines are independent.
//   P3 A line may be written back at any moment (eviction), flushed or not.
//   P4 clwb and clflushopt make durable, at the next fence of the same thread, what the line held
//      when they were executed. sfence, mfence and locked instructions are such fences.
//   P5 clflush does so at once.
//   P6 Pieces of a non-temporal store are in no order at all (but for those to the same bytes) and
//      any of them may be missing until the thread's next fence, which makes them durable.
//   P7 With eADR what is visible is durable, without a flush: all but P6, whose pieces wait in
//      write-combining buffers that eADR does not cover.
//
// Threads: the trace is one interleaving, which a tracer that serialises threads has seen. Store
// buffers need no rule of their own: their stores leave in order, so that a crash before they have
// left is a crash earlier in the trace.
//
// Not thread-safe. Memory: proportional to the lines ever stored to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace holdfast::crash {

inline constexpr std::size_t kLineBytes = 64;

// What the platform saves when power fails.
enum class PersistenceDomain : std::uint8_t {
    adr,   // the memory controller's queues: caches are lost
    eadr,  // the caches too
};

using LineNumber = std::uint64_t;  // offset in the pool / 64
using LineBytes = std::array<std::byte, kLineBytes>;
using EventIndex = std::uint32_t;
using ThreadIndex = std::uint16_t;

// One thing that a crash may leave of a line.
struct Candidate {
    LineBytes bytes;
    // The stores that are not in it though they were executed; and those that are in it though no
    // fence has made them durable yet. In order.
    std::vector<EventIndex> missing;
    std::vector<EventIndex> early;
};

class PersistencyModel {
  public:
    explicit PersistencyModel(PersistenceDomain domain) : domain_(domain) {}
    PersistenceDomain domain() const { return domain_; }

    // `offset` and `bytes` may cross words and lines. `initial_image` is the whole medium as it was
    // before the first event: what lines hold that the model has not seen yet.
    void store(ThreadIndex thread, std::uint64_t offset, std::span<const std::byte> bytes,
               bool non_temporal, EventIndex event, std::span<const std::byte> initial_image);
    void flush(ThreadIndex thread, std::uint64_t offset, std::uint64_t size_bytes);      // P4
    void flush_now(ThreadIndex thread, std::uint64_t offset, std::uint64_t size_bytes);  // P5
    void fence(ThreadIndex thread);

    // Whether a fence of that thread would make anything durable that is not yet.
    bool fence_matters(ThreadIndex thread) const;

    // The lines with more than one candidate, ascending; those with one are at it for certain.
    std::vector<LineNumber> pending() const;
    // Distinct contents: first what is durable for certain, last what is visible (if that differs).
    // At most `limit` of them (at least 2); `complete` says whether that was certainly all.
    std::vector<Candidate> candidates(LineNumber line, std::size_t limit, bool* complete) const;

    // What is durable for certain, and what a load would see; of any line ever stored to.
    LineBytes durable(LineNumber line) const;
    LineBytes visible(LineNumber line) const;
    // What a load saw after each store to the line that is not durable for certain, in order.
    std::vector<std::pair<EventIndex, LineBytes>> history(LineNumber line) const;
    // Every line ever stored to, ascending.
    std::vector<LineNumber> known_lines() const;
    // Lines whose durable content may have changed since the last call: ascending, each once.
    std::vector<LineNumber> take_newly_durable();

  private:
    // A piece of a store: within one aligned word.
    struct Piece {
        std::uint8_t offset = 0;  // in the line
        std::uint8_t size = 0;    // at most 8
        std::array<std::byte, 8> bytes{};
        bool non_temporal = false;
        bool durable = false;
        ThreadIndex thread = 0;
        EventIndex event = 0;
    };
    struct Line {
        LineBytes base;             // what is durable and has nothing undetermined below it
        std::uint64_t folded = 0;   // how many pieces went into it
        std::vector<Piece> pieces;  // the later ones, in the order of execution, i.e. of coherence
        bool undetermined() const;
    };
    // The line's cached pieces up to a place in its history, to be durable at the thread's fence.
    struct Writeback {
        LineNumber line;
        std::uint64_t until;  // pieces with a number below this
    };

    Line& line_of(LineNumber number, std::span<const std::byte> initial_image);
    static void apply(const Piece& piece, LineBytes& bytes);
    // After pieces became durable: folds those that can be into the base.
    void settle(LineNumber number, Line& line);

    PersistenceDomain domain_;
    std::map<LineNumber, Line> lines_;
    std::set<LineNumber> undetermined_;  // lines with a piece that is not durable
    std::map<ThreadIndex, std::vector<Writeback>> writebacks_;
    std::map<ThreadIndex, std::vector<LineNumber>> non_temporal_lines_;
    std::set<LineNumber> newly_durable_;
};

}  // namespace holdfast::crash
