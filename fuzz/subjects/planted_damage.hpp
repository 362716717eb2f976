// Damage that a workload's set-up ends with, for a repair to set right (script.hpp, `damage`).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/store.hpp"
#include "oracle/model.hpp"

namespace holdfast::crash {

struct PlantedDamage {
    enum class Kind : std::uint8_t {
        entry,       // a bit of the entry that maps the page
        link,        // a bit of the entry that links the page's table: 2 MiB are lost
        metadata,    // a bit of the metadata of the page's frame
        references,  // the reference count of the page's frame, well checked
        root,        // a bit of a space's root
        record,      // a bit of a space's record
        name,        // the name leads nowhere; the space is well
        leak,        // some frames are in use that nothing leads to
        limbo,       // a bit of limbo's uppermost record
        head,        // a bit of the word that leads to limbo
        build,       // a bit of the slot of a build that was interrupted
        owner,       // a bit of the superblock's next owner
    };
    Kind kind{};
    std::string space;
    VirtAddr address;

    static std::optional<Kind> parse(const std::string& word);
    bool has_space() const { return kind <= Kind::name; }
    bool has_address() const { return kind <= Kind::references; }
    std::string to_string() const;

    // Errors: not_found if there is nothing to damage.
    Result<void> plant(const Store& store) const;
    // What a repair should leave; false if there is nothing to damage.
    bool apply(oracle::Model& model) const;
};

}  // namespace holdfast::crash
