#include "model/persistency.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kWordBytes = 8;

// The subsets of a group's pieces that are neither empty nor whole are what a torn store leaves.
constexpr std::size_t kPiecesToEnumerate = 8;  // 256 subsets: a line's worth of words

}  // namespace

PersistencyModel::Line& PersistencyModel::line_of(LineNumber number,
                                                  std::span<const std::byte> initial_image) {
    const auto [found, is_new] = lines_.try_emplace(number);
    if (is_new) {
        const std::uint64_t at = number * kLineBytes;
        assert(at + kLineBytes <= initial_image.size());
        std::memcpy(found->second.base.data(), initial_image.data() + at, kLineBytes);
    }
    return found->second;
}

void PersistencyModel::apply(const Piece& piece, LineBytes& bytes) {
    std::memcpy(bytes.data() + piece.offset, piece.bytes.data(), piece.size);
}

void PersistencyModel::store(ThreadIndex thread, std::uint64_t offset,
                             std::span<const std::byte> bytes, bool non_temporal, EventIndex event,
                             std::span<const std::byte> initial_image) {
    LineNumber last = ~LineNumber{0};
    for (std::uint64_t at = 0; at < bytes.size();) {
        const std::uint64_t place = offset + at;
        const std::uint64_t word_end = (place / kWordBytes + 1) * kWordBytes;
        const std::uint64_t size = std::min<std::uint64_t>(word_end - place, bytes.size() - at);
        const LineNumber number = place / kLineBytes;
        Line& line = line_of(number, initial_image);
        Piece piece{.offset = static_cast<std::uint8_t>(place % kLineBytes),
                    .size = static_cast<std::uint8_t>(size),
                    .non_temporal = non_temporal,
                    .durable = domain_ == PersistenceDomain::eadr && !non_temporal,
                    .thread = thread,
                    .event = event};
        std::memcpy(piece.bytes.data(), bytes.data() + at, size);
        line.pieces.push_back(piece);
        if (!piece.durable) undetermined_.insert(number);
        if (number != last) {
            last = number;
            if (non_temporal) non_temporal_lines_[thread].push_back(number);
        }
        at += size;
        const bool line_is_done = at == bytes.size() || (offset + at) / kLineBytes != number;
        if (line_is_done && domain_ == PersistenceDomain::eadr && !non_temporal)
            settle(number, line);
    }
}

void PersistencyModel::flush(ThreadIndex thread, std::uint64_t offset, std::uint64_t size_bytes) {
    if (size_bytes == 0) return;
    const auto first = lines_.lower_bound(offset / kLineBytes);
    const auto end = lines_.upper_bound((offset + size_bytes - 1) / kLineBytes);
    for (auto at = first; at != end; ++at) {
        const auto& [number, line] = *at;
        const bool has_dirty = std::any_of(line.pieces.begin(), line.pieces.end(), [](auto& piece) {
            return !piece.durable && !piece.non_temporal;
        });
        if (has_dirty) writebacks_[thread].push_back({number, line.folded + line.pieces.size()});
    }
}

void PersistencyModel::flush_now(ThreadIndex, std::uint64_t offset, std::uint64_t size_bytes) {
    if (size_bytes == 0) return;
    const auto first = lines_.lower_bound(offset / kLineBytes);
    const auto end = lines_.upper_bound((offset + size_bytes - 1) / kLineBytes);
    for (auto at = first; at != end; ++at) {
        for (Piece& piece : at->second.pieces)
            if (!piece.non_temporal) piece.durable = true;
        settle(at->first, at->second);
    }
}

void PersistencyModel::fence(ThreadIndex thread) {
    for (const Writeback& writeback : writebacks_[thread]) {
        Line& line = lines_.at(writeback.line);
        for (std::uint64_t i = 0; i < line.pieces.size() && line.folded + i < writeback.until; ++i)
            if (!line.pieces[i].non_temporal) line.pieces[i].durable = true;
    }
    for (const LineNumber number : non_temporal_lines_[thread])
        for (Piece& piece : lines_.at(number).pieces)
            if (piece.non_temporal && piece.thread == thread) piece.durable = true;
    for (const Writeback& writeback : writebacks_[thread])
        settle(writeback.line, lines_.at(writeback.line));
    for (const LineNumber number : non_temporal_lines_[thread]) settle(number, lines_.at(number));
    writebacks_[thread].clear();
    non_temporal_lines_[thread].clear();
}

bool PersistencyModel::fence_matters(ThreadIndex thread) const {
    const auto writebacks = writebacks_.find(thread);
    const auto lines = non_temporal_lines_.find(thread);
    return (writebacks != writebacks_.end() && !writebacks->second.empty()) ||
           (lines != non_temporal_lines_.end() && !lines->second.empty());
}

void PersistencyModel::settle(LineNumber number, Line& line) {
    // Only a prefix can be folded: a durable piece above an undetermined one hides it where they
    // overlap, but not the other way round.
    const auto first_kept = std::find_if(line.pieces.begin(), line.pieces.end(),
                                         [](const Piece& piece) { return !piece.durable; });
    for (auto piece = line.pieces.begin(); piece != first_kept; ++piece) apply(*piece, line.base);
    line.folded += static_cast<std::uint64_t>(first_kept - line.pieces.begin());
    line.pieces.erase(line.pieces.begin(), first_kept);
    newly_durable_.insert(number);
    if (!line.undetermined()) undetermined_.erase(number);
}

bool PersistencyModel::Line::undetermined() const {
    return std::any_of(pieces.begin(), pieces.end(),
                       [](const Piece& piece) { return !piece.durable; });
}

std::vector<LineNumber> PersistencyModel::pending() const {
    std::vector<LineNumber> numbers;
    for (const LineNumber number : undetermined_) {
        bool complete = true;
        if (durable(number) != visible(number) || candidates(number, 2, &complete).size() > 1)
            numbers.push_back(number);
    }
    return numbers;
}

LineBytes PersistencyModel::durable(LineNumber number) const {
    const Line& line = lines_.at(number);
    LineBytes bytes = line.base;
    for (const Piece& piece : line.pieces)
        if (piece.durable) apply(piece, bytes);
    return bytes;
}

LineBytes PersistencyModel::visible(LineNumber number) const {
    const Line& line = lines_.at(number);
    LineBytes bytes = line.base;
    for (const Piece& piece : line.pieces) apply(piece, bytes);
    return bytes;
}

std::vector<std::pair<EventIndex, LineBytes>> PersistencyModel::history(LineNumber number) const {
    const Line& line = lines_.at(number);
    std::vector<std::pair<EventIndex, LineBytes>> seen;
    LineBytes bytes = line.base;
    for (const Piece& piece : line.pieces) {
        apply(piece, bytes);
        if (!seen.empty() && seen.back().first == piece.event)
            seen.back().second = bytes;
        else
            seen.emplace_back(piece.event, bytes);
    }
    return seen;
}

std::vector<LineNumber> PersistencyModel::known_lines() const {
    std::vector<LineNumber> numbers;
    numbers.reserve(lines_.size());
    for (const auto& [number, line] : lines_) numbers.push_back(number);
    return numbers;
}

std::vector<LineNumber> PersistencyModel::take_newly_durable() {
    std::vector<LineNumber> numbers(newly_durable_.begin(), newly_durable_.end());
    newly_durable_.clear();
    return numbers;
}

std::vector<Candidate> PersistencyModel::candidates(LineNumber number, std::size_t limit,
                                                    bool* complete) const {
    const Line& line = lines_.at(number);
    *complete = true;

    // The undetermined pieces: cached ones in groups of one store each, and non-temporal ones.
    std::vector<std::vector<std::size_t>> groups;
    std::vector<std::size_t> free_pieces;
    for (std::size_t i = 0; i < line.pieces.size(); ++i) {
        const Piece& piece = line.pieces[i];
        if (piece.durable) continue;
        if (piece.non_temporal) {
            free_pieces.push_back(i);
        } else if (!groups.empty() && line.pieces[groups.back().front()].event == piece.event) {
            groups.back().push_back(i);
        } else {
            groups.push_back({i});
        }
    }

    std::vector<Candidate> result;
    std::vector<bool> chosen(line.pieces.size());
    const auto add = [&] {
        Candidate candidate;
        candidate.bytes = line.base;
        for (std::size_t i = 0; i < line.pieces.size(); ++i) {
            const Piece& piece = line.pieces[i];
            if (piece.durable || chosen[i]) apply(piece, candidate.bytes);
            if (piece.durable) continue;
            auto& events = chosen[i] ? candidate.early : candidate.missing;
            if (events.empty() || events.back() != piece.event) events.push_back(piece.event);
        }
        const bool known = std::any_of(result.begin(), result.end(), [&](const Candidate& other) {
            return other.bytes == candidate.bytes;
        });
        if (!known) result.push_back(std::move(candidate));
    };

    // Calls `then` for each subset of the pieces, the empty one first and the whole one last; of
    // many pieces only for each piece alone and each piece alone missing.
    const auto subsets = [&](const std::vector<std::size_t>& pieces, const auto& then) {
        const auto set = [&](auto&& is_in) {
            for (std::size_t i = 0; i < pieces.size(); ++i) chosen[pieces[i]] = is_in(i);
            then();
        };
        if (pieces.size() <= kPiecesToEnumerate) {
            for (std::uint32_t mask = 0; mask < (1U << pieces.size()); ++mask)
                set([&](std::size_t i) { return (mask >> i & 1) != 0; });
        } else {
            *complete = false;
            set([](std::size_t) { return false; });
            for (std::size_t one = 0; one < pieces.size(); ++one)
                set([&](std::size_t i) { return i == one; });
            for (std::size_t one = 0; one < pieces.size(); ++one)
                set([&](std::size_t i) { return i != one; });
            set([](std::size_t) { return true; });
        }
    };

    const auto full = [&] { return result.size() >= limit; };
    add();  // nothing but what is durable: first
    for (std::size_t cut = 0; cut <= groups.size(); ++cut) {
        if (full()) {
            *complete = false;
            break;
        }
        for (std::size_t i = 0; i < groups.size(); ++i)
            for (const std::size_t piece : groups[i]) chosen[piece] = i < cut;
        const auto with_free_pieces = [&] {
            if (full()) {
                *complete = false;
                return;
            }
            subsets(free_pieces, [&] {
                if (!full())
                    add();
                else
                    *complete = false;
            });
        };
        if (cut < groups.size())
            subsets(groups[cut], with_free_pieces);
        else
            with_free_pieces();
    }

    // What is visible comes last, also if the limit cut the list short.
    std::fill(chosen.begin(), chosen.end(), true);
    LineBytes newest = visible(number);
    const auto found = std::find_if(result.begin(), result.end(), [&](const Candidate& candidate) {
        return candidate.bytes == newest;
    });
    if (found != result.end()) {
        if (found != result.begin()) std::rotate(found, found + 1, result.end());
    } else {
        if (full()) result.pop_back();
        add();
    }
    return result;
}

}  // namespace holdfast::crash
