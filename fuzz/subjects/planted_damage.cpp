#include "subjects/planted_damage.hpp"

#include <fmt/format.h>

#include <array>

#include "format/limbo.hpp"
#include "store/store_state.hpp"

namespace holdfast::crash {

using namespace format;

namespace {

constexpr std::array kWords = {"entry", "link", "metadata", "references", "root",  "record",
                               "name",  "leak", "limbo",    "head",       "build", "owner"};

void flip(const pool::Pool& pool, void* byte) {
    *static_cast<std::uint8_t*>(byte) ^= 2;
    pool.flush(byte, 1);
    pool.drain();
}

}  // namespace

std::optional<PlantedDamage::Kind> PlantedDamage::parse(const std::string& word) {
    for (std::size_t i = 0; i < kWords.size(); ++i)
        if (word == kWords[i]) return static_cast<Kind>(i);
    return std::nullopt;
}

std::string PlantedDamage::to_string() const {
    std::string text = kWords[static_cast<std::size_t>(kind)];
    if (has_space()) text += " " + space;
    if (has_address()) text += fmt::format(" {:#x}", address.bits());
    return text;
}

Result<void> PlantedDamage::plant(const Store& store) const {
    detail::StoreState& state = store.state();
    const memory::PhysicalMemory& memory = state.memory;
    const pool::Pool& pool = *state.pool;
    std::uint64_t *entry = nullptr, *link = nullptr;
    FrameNumber frame;
    SpaceRecord* record = nullptr;
    if (has_space()) {
        auto opened = state.find_space(space);
        if (!opened) return std::unexpected(opened.error());
        record = reinterpret_cast<SpaceRecord*>(memory.host((*opened)->record));
        if (has_address()) {
            Entry at = (*opened)->root().entry;
            for (auto level = static_cast<unsigned>((*opened)->levels); level > 0; --level) {
                if (!at.is_present() || (level > 1 && at.is_leaf(level + 1)))
                    return fail(ErrorCode::not_found, "nothing to damage there");
                link = entry;
                entry = memory.table(at.frame()) + slot_of(address, level);
                at = Entry(*entry);
            }
            if (!at.is_present()) return fail(ErrorCode::not_found, "nothing to damage there");
            frame = at.frame();
        }
    }
    const auto word_of = [&](std::uint64_t& word) {
        flip(pool, &word);
        return Result<void>();
    };
    const auto put_metadata = [&](FrameNumber of, const FrameMetadata& metadata) {
        std::uint64_t* const words = memory.metadata(of).word0;
        words[1] = metadata.word1();
        words[0] = metadata.word0(of);
        pool.flush(words, kFrameMetadataBytes);
        pool.drain();
    };
    switch (kind) {
        case Kind::entry:
            return word_of(*entry);
        case Kind::link:
            return word_of(*link);
        case Kind::metadata:
            return word_of(*memory.metadata(frame).word0);
        case Kind::references: {
            FrameMetadata metadata = *memory.valid_metadata(frame);
            metadata.references += 3;
            put_metadata(frame, metadata);
            return {};
        }
        case Kind::root:
            return word_of(record->root);
        case Kind::record:
            return word_of(record->created_epoch);
        case Kind::name: {
            pool::WriteSet none;
            return pool.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
                const std::uint64_t nowhere = 1;
                state.directory().put(scope, space,
                                      {reinterpret_cast<const char*>(&nowhere), sizeof nowhere});
                return {};
            });
        }
        case Kind::leak:
            for (int i = 0; i < 3; ++i) {
                auto taken = state.allocator.allocate_one();
                if (!taken) return std::unexpected(taken.error());
                put_metadata(
                    *taken,
                    {.kind = FrameKind::data, .references = 1, .generation = 5, .owner = 1});
            }
            return {};
        case Kind::limbo: {
            const auto head =
                CheckedWord::decode(memory.superblock().limbo_head, kSeedLimboHead).value_or(0);
            if (head == 0) return fail(ErrorCode::not_found, "nothing is in limbo");
            auto* const page = reinterpret_cast<LimboPage*>(memory.host(FrameNumber(head)));
            const auto count = *CheckedWord::decode(page->count, kSeedLimboCount);
            return word_of(page->records[count - 1].index);
        }
        case Kind::head:
            return word_of(memory.superblock().limbo_head);
        case Kind::build: {
            auto build = state.build_log.acquire();
            if (!build) return std::unexpected(build.error());
            if (auto done = state.build_log.reserve(*build, 20); !done) return done;
            // Two of them as a build leaves them half-way.
            for (std::uint64_t i = 0; i < 2; ++i)
                put_metadata(
                    build->unused.front().first + i,
                    {.kind = FrameKind::data, .references = 1, .generation = 3, .owner = 1});
            return word_of(*state.build_log.slot_word(*build));
        }
        case Kind::owner:
            return word_of(memory.superblock().next_owner);
    }
    return {};
}

bool PlantedDamage::apply(oracle::Model& model) const {
    if (!has_space()) return true;
    const auto found = model.spaces.find(space);
    if (found == model.spaces.end()) return false;
    if (kind == Kind::root || kind == Kind::record) {
        model.spaces.erase(found);
    } else if (has_address()) {
        const auto page = found->second.pages.find(address.bits() >> kPageShift);
        if (page == found->second.pages.end() || page->second.frame == 0) return false;
        const std::uint64_t frame = page->second.frame;
        if (kind == Kind::entry) found->second.pages.erase(page);
        if (kind == Kind::metadata)
            for (auto& [name, each] : model.spaces)
                std::erase_if(each.pages,
                              [&](const auto& item) { return item.second.frame == frame; });
        if (kind == Kind::link)
            std::erase_if(found->second.pages, [&](const auto& item) {
                return item.first >> 9 == address.bits() >> (kPageShift + 9);
            });
    }
    model.prune();
    return true;
}

}  // namespace holdfast::crash
