#include <libpmemobj++/experimental/inline_string.hpp>
#include <libpmemobj++/experimental/radix_tree.hpp>
#include <libpmemobj++/make_persistent.hpp>
#include <libpmemobj++/persistent_ptr.hpp>

#include "pool/pool.hpp"

namespace holdfast::pool {
namespace {

using Tree = pmem::obj::experimental::radix_tree<pmem::obj::experimental::inline_string,
                                                 pmem::obj::experimental::inline_string>;

pmem::obj::string_view view(std::string_view text) { return {text.data(), text.size()}; }
std::string copy(pmem::obj::string_view text) { return {text.data(), text.size()}; }

Tree& tree_at(const Pool& pool, Offset object) { return *reinterpret_cast<Tree*>(pool.at(object)); }

}  // namespace

Offset OrderedMap::create(TransactionScope&) {
    return pmem::obj::make_persistent<Tree>().raw().off;
}

void OrderedMap::destroy(TransactionScope&) {
    pmem::obj::delete_persistent<Tree>(pmem::obj::persistent_ptr<Tree>(&tree_at(*pool_, object_)));
}

void OrderedMap::put(TransactionScope&, std::string_view key, std::string_view value) {
    Tree& tree = tree_at(*pool_, object_);
    tree.insert_or_assign(view(key), view(value));
}

void OrderedMap::erase(TransactionScope&, std::string_view key) {
    tree_at(*pool_, object_).erase(view(key));
}

std::optional<std::string> OrderedMap::get(std::string_view key) const {
    const Tree& tree = tree_at(*pool_, object_);
    const auto found = tree.find(view(key));
    if (found == tree.end()) return std::nullopt;
    return copy(found->value());
}

std::uint64_t OrderedMap::size() const { return tree_at(*pool_, object_).size(); }

std::optional<OrderedMap::Item> OrderedMap::lower_bound(std::string_view key) const {
    const Tree& tree = tree_at(*pool_, object_);
    const auto found = tree.lower_bound(view(key));
    if (found == tree.end()) return std::nullopt;
    return Item{copy(found->key()), copy(found->value())};
}

std::optional<OrderedMap::Item> OrderedMap::last_not_after(std::string_view key) const {
    const Tree& tree = tree_at(*pool_, object_);
    auto after = tree.upper_bound(view(key));
    if (after == tree.begin()) return std::nullopt;
    --after;
    return Item{copy(after->key()), copy(after->value())};
}

void OrderedMap::visit(
    std::string_view from,
    const std::function<bool(std::string_view key, std::string_view value)>& visit) const {
    const Tree& tree = tree_at(*pool_, object_);
    for (auto item = tree.lower_bound(view(from)); item != tree.end(); ++item) {
        const auto& key = item->key();
        const auto& value = item->value();
        if (!visit({key.data(), key.size()}, {value.data(), value.size()})) return;
    }
}

}  // namespace holdfast::pool
